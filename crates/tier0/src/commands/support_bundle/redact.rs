//! Takes secrets out of text: those that are known by their value, and whatever stands where a
//! password usually stands. What is cut is named, so that a reader knows that something was there.

/// What stands in the place of a secret.
const CUT: &str = "[redacted]";

/// Shorter values are found in too many words.
const LEAST: usize = 6;

/// After these, in any case, comes a secret.
const MARKS: [&str; 11] = [
    "password=",
    "password =",
    "password\":",
    "password:",
    "password '",
    "passwd=",
    "token=",
    "bearer ",
    "requirepass ",
    "masterauth ",
    "auth-pass ",
];

/// The text without secrets.
pub fn redact(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() >= LEAST) {
        text = text.replace(secret.as_str(), CUT);
    }
    for mark in MARKS {
        text = without_what_follows(&text, mark);
    }
    without_passwords_in_urls(&text)
}

/// Cut the word, or the quoted text, after every occurrence of a mark.
fn without_what_follows(text: &str, mark: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut made = String::with_capacity(text.len());
    let mut done = 0;
    while let Some(found) = lower[done..].find(mark) {
        let begin = done + found + mark.len();
        made.push_str(&text[done..begin]);
        let rest = &text[begin..];
        let quoted = mark.ends_with('\'');
        let spaces = if quoted { 0 } else { rest.len() - rest.trim_start_matches(' ').len() };
        let value = &rest[spaces..];
        let open = value.chars().next().filter(|first| !quoted && matches!(first, '"' | '\''));
        let skip = spaces + usize::from(open.is_some());
        let ends: &[char] = match (open, quoted) {
            (Some('"'), _) => &['"', '\n'],
            (_, true) | (Some(_), _) => &['\'', '\n'],
            (None, false) => &[' ', '"', '\'', ',', ';', '&', '\\', '\n', ')', ']', '}'],
        };
        made.push_str(&rest[..skip]);
        let value = &rest[skip..];
        let length = value.find(ends).unwrap_or(value.len());
        if length > 0 && !value.starts_with(CUT) {
            made.push_str(CUT);
        } else {
            made.push_str(&value[..length]);
        }
        done = begin + skip + length;
    }
    made.push_str(&text[done..]);
    made
}

/// `postgres://user:password@host`.
fn without_passwords_in_urls(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find("://") {
        let (before, after) = rest.split_at(found + 3);
        made.push_str(before);
        let end = after.find([' ', '/', '"', '\'', '\n', '?']).unwrap_or(after.len());
        let authority = &after[..end];
        match authority
            .rsplit_once('@')
            .and_then(|(user, host)| Some((user.split_once(':')?.0, host)))
        {
            Some((user, host)) => made.push_str(&format!("{user}:{CUT}@{host}")),
            None => made.push_str(authority),
        }
        rest = &after[end..];
    }
    made.push_str(rest);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_and_what_stands_in_its_place_is_cut() {
        let secrets = ["s3cr3t-value".to_owned()];
        for (text, left) in [
            ("the role logs in with s3cr3t-value", "the role logs in with [redacted]"),
            ("host=a password=hunter2 port=1", "host=a password=[redacted] port=1"),
            ("\"conninfo\":\"password=hunter2\"", "\"conninfo\":\"password=[redacted]\""),
            ("ALTER ROLE x PASSWORD 'hun ter2' LOGIN", "ALTER ROLE x PASSWORD '[redacted]' LOGIN"),
            ("{\"password\": \"hunter2\"}", "{\"password\": \"[redacted]\"}"),
            ("requirepass hunter2\nport 1", "requirepass [redacted]\nport 1"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
            ("postgres://shop:hunter2@10.0.0.1/db", "postgres://shop:[redacted]@10.0.0.1/db"),
            ("http://10.0.0.1:8003/status", "http://10.0.0.1:8003/status"),
            ("password=[redacted] twice", "password=[redacted] twice"),
        ] {
            assert_eq!(redact(text, &secrets), left, "{text}");
        }
        assert_eq!(redact(&redact("password=hunter2", &[]), &[]), "password=[redacted]");
    }

    #[test]
    fn text_without_secrets_is_left_alone() {
        let text = "writer region1, epoch 4\nmain.region2#3 streams; a passwordless role ä ö";
        assert_eq!(redact(text, &["region".to_owned()][..0]), text);
    }
}
