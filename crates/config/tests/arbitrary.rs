//! Whatever is in the file: no panic, and no stack that the file does not say.
#![allow(clippy::unwrap_used)]

use std::io::Write;

use proptest::prelude::*;
use tier0_config::{ConfigError, Stack};

fn load(bytes: &[u8]) -> Result<Stack, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    Stack::load(file.path())
}

/// A stack that was accepted is the one in the text, and a refusal has a problem with a sentence.
fn is_sound(bytes: &[u8]) {
    match load(bytes) {
        Ok(stack) => {
            let text = std::str::from_utf8(bytes).unwrap();
            assert_eq!(stack, toml::from_str::<Stack>(text).unwrap());
            assert_eq!(stack.problems(), Vec::<String>::new());
            assert_eq!(stack, load(stack.to_toml().unwrap().as_bytes()).unwrap());
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let ConfigError::Invalid { problems, .. } = error else { panic!("{error}") };
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|problem| !problem.sentence.is_empty()));
        }
    }
}

/// Pieces that files are made of, right and wrong.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "[stack]",
        "[[agent]]",
        "[agent]",
        "[[datastore]]",
        "[[datastore.node]]",
        "[limits]",
        "[datastore.redis]",
        "name",
        "regions",
        "listen",
        "parameters",
        "pause_ms",
        "also_listen",
        " = ",
        "= {",
        "}",
        "[",
        "]",
        "\"",
        "'''",
        "\n",
        "\"region1\"",
        "-1",
        "1e9",
        "18446744073709551615",
        "0x10",
        "true",
        "\"10.0.0.1:80\"",
        "1979-05-27",
        ".",
        ",",
        "#",
        "é",
        "\"env:\"",
        "\u{feff}",
        "\r\n",
        "\t",
    ];
    prop::sample::select(words.to_vec()).prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        is_sound(&bytes);
    }

    #[test]
    fn any_pieces(pieces in prop::collection::vec(piece(), 0..40)) {
        is_sound(pieces.concat().as_bytes());
    }

    #[test]
    fn a_real_file_cut_anywhere(at in any::<prop::sample::Index>()) {
        let text = tier0_config::example();
        is_sound(&text.as_bytes()[..at.index(text.len())]);
    }

    #[test]
    fn a_real_file_with_a_piece_in_it(at in any::<prop::sample::Index>(), piece in piece()) {
        let mut bytes = tier0_config::example().into_bytes();
        let at = at.index(bytes.len());
        bytes.splice(at..at, piece.into_bytes());
        is_sound(&bytes);
    }

    #[test]
    fn a_real_file_without_a_line(at in any::<prop::sample::Index>()) {
        let text = tier0_config::example();
        let lines: Vec<&str> = text.lines().collect();
        let gone = at.index(lines.len());
        let kept: Vec<&str> =
            lines.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, line)| *line).collect();
        is_sound(kept.join("\n").as_bytes());
    }
}
