//! Octets as a statement, as a bundle of several, and as a batch of articles: no panic, and what is
//! accepted is given back octet by octet, through an article too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_protocol::{Statement, article, batch, bundle, log, trust::Trust};

fuzz_target!(|octets: &[u8]| {
    if let Ok(all) = batch::read(octets) {
        let mut again = Vec::new();
        all.iter().for_each(|statement| batch::write(&mut again, statement, "x!not-for-mail"));
        assert_eq!(batch::read(&again).as_ref(), Ok(&all));
    }
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
