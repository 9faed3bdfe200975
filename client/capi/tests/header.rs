//! The header says what the code does. cbindgen writes it (`cargo xtask header`); here it is read
//! beside the code, by other eyes and without cbindgen, which takes minutes to build.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path};

const WRITE: &str = "`cargo xtask header` writes it anew";

/// Names of Rust, and of C.
const TYPES: [(&str, &str); 13] = [
    ("Code", "tidings_code"),
    ("Freshness", "tidings_freshness"),
    ("Error", "tidings_error"),
    ("Options", "tidings_options"),
    ("Device", "tidings_device"),
    ("Statement", "tidings_statement"),
    ("Statements", "tidings_statements"),
    ("Trust", "tidings_trust"),
    ("c_char", "char"),
    ("c_int", "int"),
    ("u8", "uint8_t"),
    ("u32", "uint32_t"),
    ("usize", "size_t"),
];

fn words(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace("( ", "(").replace(" )", ")")
}

/// A name with its type, as C writes it.
fn declared(rust: &str, name: &str) -> String {
    let (mut rust, mut stars, mut constant) = (rust.trim(), String::new(), "");
    while let Some(pointer) = rust.strip_prefix('*') {
        stars.push('*');
        if let Some(to) = pointer.strip_prefix("const ") {
            (rust, constant) = (to, "const ");
        } else {
            rust = pointer.strip_prefix("mut ").unwrap();
        }
    }
    let known = TYPES.iter().find(|(known, _)| *known == rust);
    let (_, c) = known.unwrap_or_else(|| panic!("{rust} has no name in C"));
    format!("{constant}{c} {stars}{name}")
}

/// A function of the code, as the header has to declare it.
fn declaration(rust: &str) -> String {
    let rust = rust.split_once("extern \"C\" fn ").unwrap().1;
    let (name, rest) = rust.split_once('(').unwrap();
    let (arguments, rest) = rest.split_once(')').unwrap();
    let arguments = arguments.split(',').filter_map(|one| one.split_once(':'));
    let arguments = arguments.map(|(name, rust)| declared(rust, name.trim()));
    let arguments = arguments.collect::<Vec<_>>().join(", ");
    let arguments = if arguments.is_empty() {
        "void"
    } else {
        &arguments
    };
    let result = rest.split('{').next().unwrap().trim();
    let head = match result.strip_prefix("-> ") {
        Some(rust) => declared(rust, name),
        None => format!("void {name}"),
    };
    words(&format!("{head}({arguments});"))
}

/// A variant as C names it.
fn variant(of: &str, name: &str) -> String {
    let mut text = format!("TIDINGS_{}", of.to_uppercase());
    for c in name.chars() {
        if c.is_uppercase() {
            text.push('_');
        }
        text.extend(c.to_uppercase());
    }
    text
}

/// What stands above an item, as one line.
fn comment(above: &str) -> String {
    let lines = above.lines().rev();
    let lines = lines.take_while(|line| line.trim_start().starts_with("///"));
    let mut lines: Vec<&str> = lines
        .map(|line| line.trim_start().trim_start_matches("///"))
        .collect();
    lines.reverse();
    words(&lines.join(" "))
}

#[test]
fn the_header_is_that_of_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = words(&fs::read_to_string(root.join("include/tidings.h")).unwrap());
    let mut functions = BTreeSet::new();
    for entry in fs::read_dir(root.join("src")).unwrap() {
        let code = fs::read_to_string(entry.unwrap().path()).unwrap();
        let exported: Vec<&str> = code.split("#[unsafe(no_mangle)]\n").collect();
        for (above, below) in exported.iter().zip(&exported[1..]) {
            let declaration = declaration(below);
            let both = format!("{} */ {declaration}", comment(above));
            assert!(header.contains(&both), "the header lacks `{both}`; {WRITE}");
            functions.insert(declaration);
        }
        for numbered in code.split("#[repr(C)]\n").skip(1) {
            let (head, body) = numbered.split_once(" {\n").unwrap();
            let of = head.rsplit(' ').next().unwrap();
            for line in body.split("\n}").next().unwrap().lines() {
                let Some((name, number)) = line.trim().split_once(" = ") else {
                    continue;
                };
                let line = format!("{} = {number}", variant(&of.to_lowercase(), name));
                assert!(header.contains(&line), "the header lacks `{line}`; {WRITE}");
            }
        }
    }
    // And nothing besides.
    let outside = header.split("/*").filter_map(|part| part.split_once("*/"));
    let there: usize = outside.map(|(_, text)| text.matches(");").count()).sum();
    assert!(
        functions.len() > 30 && there == functions.len(),
        "{there} functions; {WRITE}"
    );
}
