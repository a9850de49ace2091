//! Connection strings of libpq: written for streaming, read back from the server.
//!
//! Source: `fe-connect.c` (`conninfo_parse`, `conninfo_uri_parse` is not needed), and
//! `libpqwalreceiver.c` (`libpqrcv_get_conninfo`, which the view shows with secrets starred out).

use std::collections::BTreeMap;

use crate::quote;
use crate::settings::Checked;
use tier0_config::NodeSettings;

/// How this node streams from `upstream` under `application_name`. The password is in the file.
pub(crate) fn streaming(node: &Checked, upstream: &NodeSettings, application_name: &str) -> String {
    join(&[
        ("host", upstream.address.ip().to_string()),
        ("port", upstream.address.port().to_string()),
        ("user", node.settings.postgres.replication_user.clone()),
        ("passfile", node.paths.passfile.display().to_string()),
        ("application_name", application_name.to_owned()),
        // A connection to a host that vanished must not hold the only slot for minutes.
        ("connect_timeout", "3".to_owned()),
        ("keepalives_idle", "5".to_owned()),
        ("keepalives_interval", "2".to_owned()),
        ("keepalives_count", "3".to_owned()),
        ("gssencmode", "disable".to_owned()),
    ])
}

/// How `pg_rewind` reads from `upstream`: an ordinary session in the database `postgres`.
pub(crate) fn rewinding(node: &Checked, upstream: &NodeSettings) -> String {
    format!("{} dbname='postgres'", streaming(node, upstream, "tier0-rewind"))
}

fn join(pairs: &[(&str, String)]) -> String {
    let words: Vec<_> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={}", quote::conninfo_value(value)))
        .collect();
    words.join(" ")
}

/// The keys and values of a connection string; `None` if it is torn.
pub(crate) fn parse(text: &str) -> Option<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        if letters.peek().is_none() {
            return Some(values);
        }
        let mut key = String::new();
        while let Some(letter) = letters.next_if(|letter| *letter != '=') {
            key.push(letter);
        }
        letters.next_if_eq(&'=')?;
        let mut value = String::new();
        if letters.next_if_eq(&'\'').is_some() {
            loop {
                match letters.next()? {
                    '\'' => break,
                    '\\' => value.push(letters.next()?),
                    letter => value.push(letter),
                }
            }
        } else {
            while let Some(letter) = letters.next_if(|letter| !letter.is_whitespace()) {
                match letter {
                    '\\' => value.push(letters.next()?),
                    letter => value.push(letter),
                }
            }
        }
        values.insert(key.trim().to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let written = join(&[("host", "127.0.1.1".into()), ("passfile", r"/it's\here x".into())]);
        let read = parse(&written).unwrap();
        assert_eq!(read["host"], "127.0.1.1");
        assert_eq!(read["passfile"], r"/it's\here x");
    }

    #[test]
    fn the_servers_own_form_is_read() {
        let read = parse("user=r passfile=/a channel_binding=prefer application_name='a.b#3'");
        assert_eq!(read.unwrap()["application_name"], "a.b#3");
        assert_eq!(parse("user='torn"), None);
        assert_eq!(parse("user"), None);
    }
}
