//! Octets as a statement, and as a bundle of several: no panic, and what is accepted is given back octet by octet, through
//! an article too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_protocol::{Statement, article, bundle, log, trust::Trust};

fuzz_target!(|octets: &[u8]| {
    if let Ok(all) = bundle::parse(octets) {
        assert_eq!(all.iter().flat_map(|statement| statement.octets().to_vec()).collect::<Vec<u8>>(), octets);
    }
    let Ok(statement) = Statement::parse_draft(octets) else { return };
    assert_eq!(statement.octets(), octets);
    assert!(statement.signed_part().len() <= octets.len());
    let _ = log::place(statement.predecessor(), &statement);
    let _ = Trust::resume(&"vectors".parse().unwrap(), statement.clone());
    let rendered = String::from_utf8(article::render(&statement, "x!not-for-mail").octets).unwrap().replace("\r\n", "\n");
    if let Ok(incoming) = article::parse(rendered.as_bytes()) {
        assert_eq!(incoming.statement, statement);
    } else {
        assert!(statement.signatures().is_empty());
    }
});
