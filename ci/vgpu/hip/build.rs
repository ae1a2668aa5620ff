//! Makes a stub of every function that callers may load and that the sources do not have, so that a
//! call which is not provided says so instead of being a missing symbol.

use std::collections::BTreeSet;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=names.txt");
    println!("cargo:rerun-if-changed=src");
    let mut provided = BTreeSet::new();
    for file in std::fs::read_dir("src").expect("the sources") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("its text");
        // Every exported function is written `fn hipName(`.
        let names = text.split("fn hip").skip(1).filter_map(|rest| rest.split_once('('));
        provided.extend(names.map(|(name, _)| format!("hip{name}")));
    }
    let names = std::fs::read_to_string("names.txt").expect("the list of names");
    let stubs: String = names
        .lines()
        .filter(|name| !provided.contains(*name))
        .map(|name| format!("unprovided!({name});\n"))
        .collect();
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    std::fs::write(Path::new(&out).join("stubs.rs"), stubs).expect("a place for the stubs");
}
