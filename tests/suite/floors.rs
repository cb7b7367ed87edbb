//! The layers of the crate. A file imports only from layers below its own; modules of one layer do not import each
//! other; no two files import each other. The modules of layer 0 are pure data and may import each other.
use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The modules of `src`, lowest layer first. A new folder is added here, in the lowest layer that is above everything
/// it imports. A folder is listed as a whole, or by its subfolders.
const FLOORS: [&[&str]; 11] = [
    &[
        "connect",
        "directory",
        "error",
        "json",
        "names",
        "operation",
        "placement",
        "query",
        "rt",
        "secret",
        "server",
        "sql",
        "sqlstate",
        "tenant",
    ],
    &["store/schema"],
    &["store/admin", "store/journal", "store/nodes", "store/registry", "store/tokens", "store/vault"],
    &["saga"],
    &["cluster", "pool"],
    &["resolver"],
    &["operations"],
    &["doctor", "setup_link"],
    &["facade", "job"],
    &["cli", "testing", "web"],
    &["manual"],
];

#[test]
fn no_file_imports_upward_or_sideways() {
    let sources = sources();
    let wrong: Vec<_> = sources.iter().flat_map(|source| complaints(source, &names())).collect();
    assert!(sources.len() > 150, "the sources were found");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_two_files_import_each_other() {
    let wrong = circles(&sources());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A file of the product.
struct Source {
    /// Below `src`, without extension: `pool/budget/server`, `pool/mod`.
    path: String,
    text: String,
}

impl Source {
    /// The module that the file holds: `["pool", "budget", "server"]`.
    fn module(&self) -> Vec<String> {
        self.path.split('/').filter(|part| *part != "mod").map(String::from).collect()
    }
    /// Absolute paths of all that is named with `crate::` or `super::`. What is built for tests only is left out.
    fn imports(&self) -> Vec<Vec<String>> {
        let mut found = vec![];
        imports(self.text.parse().unwrap(), &self.module(), &mut found);
        found
    }
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file but `lib.rs` and those of unit tests, which are no part of the product.
fn sources() -> Vec<Source> {
    fn files(directory: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }
    let (src, rust) = (src(), |path: &PathBuf| path.extension().is_some_and(|e| e == "rs"));
    let source = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        Source { path: path.with_extension("").strip_prefix(&src).unwrap().to_str().unwrap().into(), text }
    };
    let product = |source: &Source| source.path != "lib" && !source.path.split('/').any(|part| part == "tests");
    files(&src).into_iter().filter(rust).map(source).filter(product).collect()
}

/// Which module each name comes from that `lib.rs` re-exports: `pub use module::{Name, …};`.
fn names() -> BTreeMap<String, Vec<String>> {
    let mut found = vec![];
    let lib = std::fs::read_to_string(src().join("lib.rs")).unwrap();
    for statement in lib.split("pub use ").skip(1) {
        let tree: TokenStream = statement.split(';').next().unwrap().parse().unwrap();
        expand(tree.into_iter().collect(), vec![], &mut found);
    }
    found.into_iter().map(|path| (path.last().unwrap().clone(), path)).collect()
}

fn room(module: &[String]) -> Option<(usize, &'static str)> {
    let path = module.join("/");
    let is_in = |room: &&&str| path.strip_prefix(**room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    FLOORS.iter().enumerate().find_map(|(floor, rooms)| Some((floor, *rooms.iter().find(is_in)?)))
}

fn complaints(source: &Source, names: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    let complaint = |import: Vec<String>| {
        let import = names.get(&import[0]).filter(|_| room(&import).is_none()).cloned().unwrap_or(import);
        let (path, homeless) = (&source.path, "has no floor; give it one in FLOORS (tests/suite/floors.rs)");
        let Some((here, own)) = room(&source.module()) else { return Some(format!("{path} {homeless}")) };
        let Some((there, to)) = room(&import) else { return Some(format!("{path}: {} {homeless}", import.join("::"))) };
        match here.cmp(&there) {
            _ if own == to => None,
            std::cmp::Ordering::Less => Some(format!("{path} (floor {here}) imports {to} from above (floor {there})")),
            std::cmp::Ordering::Equal if here > 0 => Some(format!("{path} imports its sibling {to} (floor {here})")),
            _ => None,
        }
    };
    source.imports().into_iter().filter_map(complaint).collect()
}

/// Pairs of files that import each other. A folder's `mod` and the files in it are one subject and may.
fn circles(sources: &[Source]) -> Vec<String> {
    let files: BTreeMap<Vec<String>, &str> = sources.iter().map(|s| (s.module(), s.path.as_str())).collect();
    let file = |import: &[String]| (1..=import.len()).rev().find(|n| files.contains_key(&import[..*n]));
    let mut edges = BTreeSet::new();
    for source in sources.iter().filter(|source| room(&source.module()).is_some_and(|(floor, _)| floor > 0)) {
        let from = source.module();
        for import in source.imports() {
            let Some(n) = file(&import) else { continue };
            let to = import[..n].to_vec();
            if !from.starts_with(&to) && !to.starts_with(&from) {
                edges.insert((from.clone(), to));
            }
        }
    }
    let both = edges.iter().filter(|(from, to)| from < to && edges.contains(&(to.clone(), from.clone())));
    both.map(|(one, other)| format!("{} and {} import each other", files[one], files[other])).collect()
}

fn imports(tokens: TokenStream, module: &[String], found: &mut Vec<Vec<String>>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if is_test_only(&tokens[at..]) {
            at += 2;
            while tokens.get(at).is_some_and(|token| !ends_item(token)) {
                at += 1;
            }
            at += 1;
            continue;
        }
        if let Some((base, steps)) = base(&tokens[at..], module) {
            at += steps;
            expand(tokens[at..].to_vec(), base, found);
        }
        if let Some(TokenTree::Group(group)) = tokens.get(at) {
            let is_module = at >= 2 && is_word(&tokens[at - 2], "mod");
            let inner: Vec<_> = module.iter().cloned().chain(is_module.then(|| tokens[at - 1].to_string())).collect();
            imports(group.stream(), &inner, found);
        }
        at += 1;
    }
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    token.to_string() == word
}

fn is_test_only(tokens: &[TokenTree]) -> bool {
    is_word(&tokens[0], "#") && tokens.get(1).is_some_and(|token| token.to_string().replace(' ', "") == "[cfg(test)]")
}

fn ends_item(token: &TokenTree) -> bool {
    is_word(token, ";")
        || matches!(token, TokenTree::Group(group) if group.delimiter() == proc_macro2::Delimiter::Brace)
}

/// Whether a path begins here with `crate::` or `super::`; from which module it counts, and how many tokens that took.
fn base(tokens: &[TokenTree], module: &[String]) -> Option<(Vec<String>, usize)> {
    let word = |n: usize| tokens.get(n * 3).map(ToString::to_string).unwrap_or_default();
    let colons =
        |n: usize| tokens.len() > n * 3 + 2 && is_word(&tokens[n * 3 + 1], ":") && is_word(&tokens[n * 3 + 2], ":");
    if word(0) == "crate" && colons(0) {
        return Some((vec![], 3));
    }
    let supers = (0..).take_while(|n| word(*n) == "super" && colons(*n)).count();
    (supers > 0 && supers <= module.len()).then(|| (module[..module.len() - supers].to_vec(), supers * 3))
}

/// Every path of the tree that these tokens begin with: `a::{b, c::{self, D}}`.
fn expand(tokens: Vec<TokenTree>, base: Vec<String>, found: &mut Vec<Vec<String>>) {
    let mut path = base;
    let mut at = 0;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Group(group)) if group.delimiter() == proc_macro2::Delimiter::Brace => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                for part in inner.split(|token| is_word(token, ",")).filter(|part| !part.is_empty()) {
                    expand(part.to_vec(), path.clone(), found);
                }
                return;
            }
            Some(TokenTree::Ident(name)) if name != "self" => path.push(name.to_string()),
            _ => {}
        }
        let colons = |n: usize| tokens.get(at + n).is_some_and(|token| is_word(token, ":"));
        if !(colons(1) && colons(2)) {
            break;
        }
        at += 3;
    }
    if !path.is_empty() {
        found.push(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    fn seen(path: &str, text: &str) -> String {
        let names = BTreeMap::from([(String::from("TenantPool"), vec!["pool".into(), "TenantPool".into()])]);
        complaints(&source(path, text), &names).into_iter().collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn import_from_above_is_reported_in_every_form() {
        for text in [
            "use crate::resolver::PooledResolver;",
            "pub(crate) use crate::{error::X, resolver::{PooledResolver, Y}};",
            "fn f() -> crate::resolver::X { todo!() }",
            "mod inner { fn f() { g(crate::resolver::h()); } }",
            "fn f() { assert!(matches!(x, crate::resolver::X)); }",
            "use super::super::resolver::X;",
            "mod inner { use super::super::super::resolver::X; }",
            "#[cfg(test)] use crate::error::X; use crate::resolver::Y;",
        ] {
            let expected = "cluster/lock (floor 4) imports resolver from above (floor 5)";
            assert_eq!(seen("cluster/lock", text), expected, "{text}");
        }
        assert!(seen("store/vault/mod", "use crate::TenantPool;").contains("imports pool from above"));
        assert!(seen("names/mod", "use super::cluster::Session;").contains("imports cluster from above"));
    }

    #[test]
    fn import_of_a_sibling_is_reported() {
        let told = seen("store/vault/mod", "use super::registry::X;");
        assert_eq!(told, "store/vault/mod imports its sibling store/registry (floor 2)");
        assert_eq!(seen("pool/mod", "use crate::cluster::X;"), "pool/mod imports its sibling cluster (floor 4)");
    }

    #[test]
    fn room_without_a_floor_is_reported() {
        let told = "has no floor; give it one in FLOORS (tests/suite/floors.rs)";
        assert_eq!(seen("attic", "use crate::error::X;"), format!("attic {told}"));
        assert_eq!(seen("tenant", "use crate::attic::X;"), format!("tenant: attic::X {told}"));
        assert_eq!(seen("store/new", "use crate::error::X;"), format!("store/new {told}"));
    }

    #[test]
    fn import_from_below_is_not_reported() {
        for text in [
            "use crate::{error::X, store::schema::Y}; use crate::store::vault::record; use super::own;",
            "//! [`X`](crate::saga::X)\n/// crate::web\nfn f() { g(\"crate::web::X\", '{'); } // crate::web",
            "#[cfg(test)]\nmod tests { use crate::web::X; }",
            "#[cfg(test)]\nuse crate::web::X;",
            "use sqlx::saga; use other_crate::web::X; mod inner { use super::super::vault::keys; }",
        ] {
            assert_eq!(seen("store/vault/record", text), "", "{text}");
        }
        assert_eq!(seen("tenant", "use crate::error::X;"), "", "pure data may name each other");
    }

    #[test]
    fn files_that_import_each_other_are_reported() {
        let told = |a: &str, b: &str| circles(&[source("saga/a", a), source("saga/b", b), source("saga/mod", "")]);
        assert_eq!(told("use super::b::X;", "use crate::saga::a::Y;"), ["saga/a and saga/b import each other"]);
        assert_eq!(told("use super::b::X;", "use super::Y;"), [""; 0]);
    }
}
