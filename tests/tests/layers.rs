//! The layers of the crates: each module uses only those before it in its crate's list, and no files use each other in a
//! circle.
//!
//! Read from the sources: every path that begins with `crate::` or `super::`, in code that is built without `cfg(test)`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The core's layers, the lowest first.
const CORE: [&str; 18] = [
    "sync", "error", "provider", "class", "config", "pages", "slab", "block", "handle", "epoch",
    "snapshot", "depot", "cache", "heap", "local", "scope", "domain", "adapter",
];

/// Those of the hosted crate.
const HOSTED: [&str; 9] = [
    "sys",
    "rss",
    "lock",
    "signal_lock",
    "provider",
    "reclaimer",
    "export",
    "global",
    "task",
];

/// Files that are built for tests alone.
const TESTS: [&str; 3] = ["models", "tests", "races"];

/// The code of a file that is built without tests, without its comments.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let text = text.split("\n#[cfg(all(test").next().unwrap_or_default();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// The names that follow `path` in the code: one, or those in braces up to their own paths.
fn names_after(code: &str, path: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = Vec::new();
    for (at, _) in code.match_indices(path) {
        // `super::super::x` is found once, and not as `super::x`, too.
        if code[..at].ends_with(|c: char| is_word(c) || c == ':') {
            continue;
        }
        let rest = &code[at + path.len()..];
        if let Some(inside) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in inside.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.push(std::mem::take(&mut name)),
                    c if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            names.push(name);
        } else {
            names.push(rest.chars().take_while(|c| is_word(*c)).collect());
        }
    }
    let first = |name: &String| name.trim().chars().take_while(|c| is_word(*c)).collect();
    names
        .iter()
        .map(first)
        .filter(|name: &String| !name.is_empty())
        .collect()
}

/// What a file makes known of its modules' names: `use module::{Name, Other}`.
fn known(code: &str, modules: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for module in modules {
        for path in [format!("use {module}::"), format!("use crate::{module}::")] {
            for name in names_after(code, &path) {
                all.insert(name, module.clone());
            }
        }
    }
    all
}

/// Uses of a module by one before it in the list, and modules that are not in it.
fn upward(order: &[&str], lib: &str, sources: &[(String, String)]) -> Vec<String> {
    let modules: BTreeSet<String> = order.iter().map(|name| (*name).to_owned()).collect();
    let known = known(&code(lib), &modules);
    let place = |name: &str| order.iter().position(|other| *other == name);
    let mut found = Vec::new();
    for (module, text) in sources {
        let Some(here) = place(module) else {
            found.push(format!("{module} is in no layer"));
            continue;
        };
        for name in names_after(&code(text), "crate::") {
            let name = known.get(&name).unwrap_or(&name);
            if place(name).is_some_and(|there| there > here) {
                found.push(format!("{module} uses {name}"));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Files, or directories, of one directory that use each other in a circle, by what each uses.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    // What uses nothing that is left is in no circle.
    let mut left = uses.clone();
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, others| others.iter().any(|other| names.contains(other)));
        if left.len() == before {
            break;
        }
    }
    (!left.is_empty()).then(|| format!("{left:?}"))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            all.push(path);
        }
    }
    all
}

fn name_of(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

fn sources(src: &Path) -> Vec<(String, String)> {
    files(src)
        .iter()
        .filter(|path| !TESTS.contains(&name_of(path).as_str()))
        .filter_map(|path| {
            let inside = path.strip_prefix(src).unwrap();
            let first = inside
                .components()
                .next()
                .unwrap()
                .as_os_str()
                .to_str()
                .unwrap();
            let module = first.strip_suffix(".rs").unwrap_or(first).to_owned();
            let is_module = !["lib", "main", "bin"].contains(&module.as_str())
                && !inside
                    .components()
                    .any(|part| TESTS.contains(&part.as_os_str().to_str().unwrap()));
            is_module.then(|| (module, fs::read_to_string(path).unwrap()))
        })
        .collect()
}

/// Circles among the files of each directory.
fn circles(dir: &Path) -> Vec<String> {
    let entries = || {
        fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
    };
    let mut found: Vec<String> = entries()
        .filter(|path| path.is_dir())
        .flat_map(|path| circles(&path))
        .collect();
    let modules: BTreeSet<String> = entries()
        .filter(|path| path.is_dir() || path.extension().is_some_and(|ext| ext == "rs"))
        .map(|path| name_of(&path))
        .filter(|name| {
            !["lib", "main", "mod"].contains(&name.as_str()) && !TESTS.contains(&name.as_str())
        })
        .collect();
    let top = ["mod.rs", "lib.rs", "main.rs"]
        .map(|name| fs::read_to_string(dir.join(name)).unwrap_or_default());
    let known = known(&code(&top.concat()), &modules);
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for module in &modules {
        let others = uses.entry(module.clone()).or_default();
        let (file, inside) = (dir.join(format!("{module}.rs")), dir.join(module));
        let mut own: Vec<(PathBuf, &str)> = Vec::new();
        if file.exists() {
            own.push((file, "super::"));
        } else {
            own.extend(files(&inside).into_iter().map(|path| {
                let is_top = path.parent() == Some(&inside) && name_of(&path) == "mod";
                (path, if is_top { "super::" } else { "super::super::" })
            }));
        }
        for (path, up) in own {
            for name in names_after(&code(&fs::read_to_string(&path).unwrap()), up) {
                let name = known.get(&name).unwrap_or(&name);
                if modules.contains(name) && name != module {
                    others.insert(name.clone());
                }
            }
        }
    }
    found.extend(circle(&uses).map(|circle| format!("{}: {circle}", dir.display())));
    found
}

fn src(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(of)
}

/// Catches a layer that uses one above it, and a module that is in no layer.
#[test]
fn each_layer_uses_those_below_it() {
    for (of, order) in [("core/src", &CORE[..]), ("hosted/src", &HOSTED[..])] {
        let src = src(of);
        let lib = fs::read_to_string(src.join("lib.rs")).unwrap();
        let sources = sources(&src);
        assert!(
            sources.len() > order.len(),
            "the sources are where they should be"
        );
        assert_eq!(upward(order, &lib, &sources), [""; 0], "in {of}");
    }
}

/// Catches two files that cannot be understood one after the other.
#[test]
fn no_files_use_each_other() {
    for of in [
        "core/src",
        "core/report/src",
        "hosted/bench/src",
        "hosted/page/src",
        "hosted/tslab/src",
        "hosted/src",
        "hosted/capi/src",
        "kernel-demo/src",
    ] {
        assert_eq!(circles(&src(of)), [""; 0]);
    }
}

/// What the tests above would say of the heap of 0.1, which used the layer of locals, of a path in the middle of a line, of one
/// through a name that the crate makes known, and of three files in a circle.
#[test]
fn what_is_wrong_is_found() {
    let found = |module: &str, text: &str| {
        let sources = [(module.to_owned(), text.to_owned())];
        upward(&CORE, "pub use local::{Local, Magazines};\n", &sources)
    };
    assert_eq!(
        found("heap", "use crate::local::{Local, Registry};\n"),
        ["heap uses local"]
    );
    assert_eq!(
        found("heap", "fn f() -> crate::local::Local { g() }\n"),
        ["heap uses local"]
    );
    assert_eq!(
        found("heap", "use crate::{depot::EpochDepot, local::Local};\n"),
        ["heap uses local"]
    );
    assert_eq!(found("heap", "use crate::Local;\n"), ["heap uses local"]);
    assert_eq!(found("seat", ""), ["seat is in no layer"]);
    let fine = "use crate::depot::EpochDepot;\n//! As [`crate::local`] says.\n#[cfg(test)]\nmod tests { use crate::local::Local; }\n";
    assert_eq!(found("heap", fine), [""; 0]);
    let uses = |edges: &[(&str, &str)]| {
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            all.entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
            all.entry((*to).to_owned()).or_default();
        }
        circle(&all)
    };
    assert_eq!(
        uses(&[("runs", "meta"), ("meta", "tree"), ("runs", "tree")]),
        None
    );
    assert!(uses(&[("runs", "meta"), ("meta", "tree"), ("tree", "runs")]).is_some());
}
