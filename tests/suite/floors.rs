//! The crate's floors: a module imports only from floors below its own, and siblings do not import each other. So there
//! is no circle either, but among the words of floor 0, which may name each other.
use proc_macro2::{TokenStream, TokenTree};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A new top-level module is added here, on the lowest floor that is above everything it imports.
const FLOORS: [&[&str]; 8] = [
    &["database", "error", "ident", "operation", "placement", "rights", "secret", "sqlstate", "tenant", "yields"],
    &["pg", "schema"],
    &["admin", "nodes", "registry", "saga", "step", "tokens", "vault"],
    &["resolver", "worker"],
    &["lifecycle", "migrate", "provision", "rekey", "rotate", "servers"],
    &["setup", "doctor", "fleet"],
    &["tenantry", "job"],
    &["testing", "web", "cli"],
];

#[test]
fn no_file_imports_upward_or_sideways() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    let names = re_exports(&text(&src.join("lib.rs")));
    let files = files(&src);
    let read = |path: &PathBuf| (path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned(), text(path));
    let wrong: Vec<_> = files.iter().map(read).flat_map(|(path, text)| complaints(&path, &text, &names)).collect();
    assert!(files.len() > 50, "the sources were found");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let inside = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(inside).filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

/// What is wrong with a file, by its path below `src`. `names` are the crate's re-exports: name and module.
fn complaints(path: &str, text: &str, names: &BTreeMap<String, String>) -> Vec<String> {
    let parts: Vec<_> = path.trim_end_matches(".rs").split('/').filter(|part| *part != "mod").collect();
    let own = parts[0];
    // A module's tests may use what is above it; they are no part of the product.
    if own == "lib" || parts.contains(&"tests") {
        return vec![];
    }
    let mut found = vec![];
    imports(text.parse().unwrap(), parts.len(), &mut found);
    let module = |name: String| names.get(&name).cloned().unwrap_or(name);
    let mut wrong: Vec<_> = found.into_iter().map(module).filter_map(|to| complaint(path, own, &to)).collect();
    wrong.sort();
    wrong.dedup();
    wrong
}

fn complaint(path: &str, own: &str, to: &str) -> Option<String> {
    let floor = |name: &str| FLOORS.iter().position(|floor| floor.contains(&name));
    let homeless =
        |name: &str| Some(format!("{path}: {name} has no floor; give it one in FLOORS (tests/suite/floors.rs)"));
    let (Some(here), Some(there)) = (floor(own), floor(to)) else {
        return homeless(if floor(own).is_none() { own } else { to });
    };
    match here.cmp(&there) {
        _ if own == to => None,
        std::cmp::Ordering::Less => {
            Some(format!("{path}: {own} (floor {here}) imports {to} from above (floor {there})"))
        }
        std::cmp::Ordering::Equal if here > 0 => Some(format!("{path}: {own} imports its sibling {to} (floor {here})")),
        _ => None,
    }
}

/// The first names of all paths that begin at the crate's root: `crate::…`, and as many `super::…` as lead there from
/// `depth` modules below it. What is built for tests only is skipped.
fn imports(tokens: TokenStream, depth: usize, found: &mut Vec<String>) {
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
        if let Some(steps) = to_root(&tokens[at..], depth) {
            at += steps;
            first_names(tokens.get(at), found);
        }
        if let Some(TokenTree::Group(group)) = tokens.get(at) {
            let is_module = at >= 2 && is_word(&tokens[at - 2], "mod");
            imports(group.stream(), depth + usize::from(is_module), found);
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

/// How many tokens lead to the crate's root, if they do: a word and two colons each.
fn to_root(tokens: &[TokenTree], depth: usize) -> Option<usize> {
    let word = |n: usize| tokens.get(n * 3).map(ToString::to_string).unwrap_or_default();
    let colons =
        |n: usize| tokens.len() > n * 3 + 2 && is_word(&tokens[n * 3 + 1], ":") && is_word(&tokens[n * 3 + 2], ":");
    if word(0) == "crate" && colons(0) {
        return Some(3);
    }
    let supers = (0..).take_while(|n| word(*n) == "super" && colons(*n)).count();
    (supers > 0 && supers == depth).then_some(supers * 3)
}

/// `name` of `name::…`, and each one of `{name::…, name}`.
fn first_names(token: Option<&TokenTree>, found: &mut Vec<String>) {
    match token {
        Some(TokenTree::Group(group)) => {
            let mut first = true;
            for token in group.stream() {
                if first {
                    first_names(Some(&token), found);
                }
                first = is_word(&token, ",");
            }
        }
        Some(token) => found.push(token.to_string()),
        None => {}
    }
}

/// Which module each name comes from that `lib.rs` re-exports: `pub use module::{Name, …};`.
fn re_exports(lib: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let statements = lib.lines().filter_map(|line| line.strip_prefix("pub use ")?.strip_suffix(';')?.split_once("::"));
    for (module, list) in statements {
        let list = list.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty());
        names.extend(list.map(|name| (name.to_owned(), module.to_owned())));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(path: &str, text: &str) -> String {
        let names = re_exports("pub use resolver::{ConnectionResolver, pool};\npub use sqlx;");
        complaints(path, text, &names).join("; ")
    }

    #[test]
    fn an_import_from_above_is_seen_in_every_form() {
        for text in [
            "use crate::saga::Engine;",
            "pub(crate) use crate::{error::X, saga::{Engine, Run}};",
            "fn f() -> crate::saga::Engine { todo!() }",
            "mod inner { fn f() { g(crate::saga::h()); } }",
            "fn f() { assert!(matches!(x, crate::saga::X)); }",
            "use super::super::saga::Engine;",
            "mod inner { use super::super::super::saga::Engine; }",
            "#[cfg(test)] use crate::error::X; use crate::saga::Y;",
        ] {
            assert_eq!(
                seen("pg/lock.rs", text),
                "pg/lock.rs: pg (floor 1) imports saga from above (floor 2)",
                "{text}"
            );
        }
        assert!(seen("vault/mod.rs", "use crate::pool::TenantPool;").contains("imports resolver from above"));
        assert!(seen("ident.rs", "use super::pg::Session;").contains("imports pg from above"));
    }

    #[test]
    fn siblings_and_so_circles_are_seen() {
        assert_eq!(
            seen("vault/mod.rs", "use crate::registry::X;"),
            "vault/mod.rs: vault imports its sibling registry (floor 2)"
        );
        assert_eq!(
            seen("registry.rs", "use crate::vault::X;"),
            "registry.rs: registry imports its sibling vault (floor 2)"
        );
    }

    #[test]
    fn a_module_without_a_floor_is_told_where_to_get_one() {
        let told = "has no floor; give it one in FLOORS (tests/suite/floors.rs)";
        assert_eq!(seen("attic.rs", "use crate::error::X;"), format!("attic.rs: attic {told}"));
        assert_eq!(seen("tenant.rs", "use crate::attic::X;"), format!("tenant.rs: attic {told}"));
    }

    #[test]
    fn what_may_be_is_not_complained_about() {
        for text in [
            "use crate::{error::X, pg::Y}; use crate::vault::record; use super::mod_of_my_own;",
            "//! [`X`](crate::saga::X)\n/// crate::web\nfn f() { g(\"crate::web::X\", '{'); } // crate::web",
            "#[cfg(test)]\nmod tests { use crate::web::X; }",
            "#[cfg(test)]\nuse crate::web::X;",
            "use sqlx::saga; use other_crate::web::X; mod inner { use super::super::keys; }",
        ] {
            assert_eq!(seen("vault/record.rs", text), "", "{text}");
        }
        assert_eq!(seen("tenant.rs", "use crate::error::X;"), "", "words name each other");
        assert_eq!(seen("pg/tests/rights.rs", "use crate::testing::TestServer;"), "");
        assert_eq!(seen("lib.rs", "pub use tenantry::Tenantry; use crate::web::X;"), "");
    }
}
