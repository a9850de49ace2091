//! The only place where text becomes part of SQL, of a configuration line, of a `pg_hba.conf`
//! field, of a connection string, of a password file or of a shell command.
//!
//! Sources: `scansup.c` and `quote.c` (SQL), `guc-file.l` (settings), `hba.c` `next_token`,
//! `fe-connect.c` `conninfo_parse` and `passwordFromFile`, `archive/shell_archive.c` (`%`).

/// An SQL string literal. The server must have `standard_conforming_strings` on, its default; a
/// backslash makes it an escape string, which means the same under either setting.
pub(crate) fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!(" E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// An SQL identifier.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value in `postgresql.conf`. Line breaks become escapes, so a value stays one line.
pub(crate) fn conf_value(text: &str) -> String {
    let escaped =
        text.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n").replace('\r', "\\r");
    format!("'{escaped}'")
}

/// A database or role in `pg_hba.conf`; quoting also takes away the meaning of words like `all`.
pub(crate) fn hba_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value in a connection string.
pub(crate) fn conninfo_value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A field of a password file.
pub(crate) fn passfile_field(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:")
}

/// One word of a shell command inside `archive_command` or `restore_command`, where PostgreSQL
/// replaces `%p` and the like before the shell sees it.
pub(crate) fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''").replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_keeps_quotes_and_backslashes_inside() {
        assert_eq!(literal("o'clock"), "'o''clock'");
        assert_eq!(literal(r"a\'b"), r" E'a\\''b'");
        assert_eq!(identifier(r#"a";DROP"#), r#""a"";DROP""#);
    }

    #[test]
    fn a_setting_stays_one_line() {
        assert_eq!(conf_value("it's\nfsync = off"), r"'it''s\nfsync = off'");
        assert_eq!(conf_value(r"C:\x"), r"'C:\\x'");
    }

    #[test]
    fn other_forms() {
        assert_eq!(hba_name(r#"a"b"#), r#""a""b""#);
        assert_eq!(conninfo_value(r"it's\"), r"'it\'s\\'");
        assert_eq!(passfile_field(r"a:b\c"), r"a\:b\\c");
        assert_eq!(shell_word("/a'b%p"), r"'/a'\''b%%p'");
    }
}
