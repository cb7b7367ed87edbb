//! `completions` and `man`: what a package of the program installs next to it.
use super::failure::CommandError;
use super::output::Output;
use clap::{Args, Command};
use clap_complete::Shell;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// Writes a page for each command into this directory, instead of the main page to stdout
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl CompletionsArgs {
    pub(super) fn run(&self, mut command: Command, program: &str) -> Output {
        let mut script = vec![];
        clap_complete::generate(self.shell, &mut command, program, &mut script);
        let script = String::from_utf8_lossy(&script).into_owned();
        Output::new().raw(&*script).field("script", &script)
    }
}

impl ManArgs {
    pub(super) fn run(&self, command: Command) -> Result<Output, CommandError> {
        let failed = |error: std::io::Error| CommandError::failed(format!("the page cannot be written: {error}"));
        if let Some(dir) = &self.dir {
            std::fs::create_dir_all(dir).map_err(failed)?;
            clap_mangen::generate_to(command, dir).map_err(failed)?;
            return Ok(Output::new().line(format!("The pages are in {}.", dir.display())).field("directory", dir));
        }
        let mut page = vec![];
        clap_mangen::Man::new(command).render(&mut page).map_err(failed)?;
        let page = String::from_utf8_lossy(&page).into_owned();
        Ok(Output::new().raw(&*page).field("page", &page))
    }
}
