//! The file that says where a route points. For PgBouncer: one line that `pgbouncer.ini` includes,
//! below a comment that says by which epoch. For the router and HAProxy: the same comment, and an address.
//! Replaced as a whole, so that nobody ever reads half.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tier0_core::words::{Epoch, Region};

/// How the comment begins.
const MARK: &str = "; tier0 epoch ";
/// How the line of a router's address begins.
const ADDRESS: &str = "address ";

/// Where the file points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointed {
    /// By which epoch.
    pub epoch: Epoch,
    /// At which region's node.
    pub to: Region,
}

/// The file's text. PgBouncer's own parser takes letters, digits and `_.-` in a name, quoted or not.
pub fn pointer_text(pointed: &Pointed, database: &str, address: SocketAddr) -> String {
    format!(
        "; Replaced by tier0's agent at every switch; pool sizes belong into pgbouncer.ini.\n\
         {MARK}{} region {}\n{} = host={} port={} dbname='{}'\n",
        pointed.epoch,
        pointed.to,
        database,
        address.ip(),
        address.port(),
        database.replace('\'', "''"),
    )
}

/// The text of a router's file.
pub fn plain_text(pointed: &Pointed, address: SocketAddr) -> String {
    format!("{MARK}{} region {}\n{ADDRESS}{address}\n", pointed.epoch, pointed.to)
}

/// Where a router's file points; `None` where there is none.
pub fn read_with_address(path: &Path) -> std::io::Result<Option<(Pointed, SocketAddr)>> {
    let Some(pointed) = read(path)? else { return Ok(None) };
    let text = std::fs::read_to_string(path)?;
    let address = text.lines().find_map(|line| line.strip_prefix(ADDRESS)?.parse().ok());
    let damaged =
        || std::io::Error::new(ErrorKind::InvalidData, "the line of its address is damaged");
    address.map(|address| Some((pointed, address))).ok_or_else(damaged)
}

/// Where the file points; `None` where no agent has written it yet.
pub fn read(path: &Path) -> std::io::Result<Option<Pointed>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(rest) = text.lines().find_map(|line| line.strip_prefix(MARK)) else { return Ok(None) };
    let parsed = rest.split_once(" region ").and_then(|(epoch, region)| {
        Some(Pointed { epoch: Epoch::read(epoch.parse().ok()?), to: region.trim().parse().ok()? })
    });
    // A line that says something else is not guessed at: an epoch that is lost lets an older one in.
    let damaged =
        || std::io::Error::new(ErrorKind::InvalidData, "the line of its epoch is damaged");
    parsed.map(Some).ok_or_else(damaged)
}

/// Put another text in its place, durably.
pub fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = PathBuf::from(format!("{}.new", path.display()));
    let mut options = File::options();
    // PgBouncer may run as another user; no secret is in it.
    options.write(true).create(true).truncate(true).mode(0o644);
    let mut file = options.open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        // Without this a crash may bring the older one back.
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn pointed() -> Pointed {
        Pointed { epoch: Epoch::read(7), to: "region2".parse().unwrap() }
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("databases.ini");
        assert_eq!(read(&path).unwrap(), None);
        let text = pointer_text(&pointed(), "shop", "10.0.2.10:5432".parse().unwrap());
        replace(&path, &text).unwrap();
        assert_eq!(read(&path).unwrap(), Some(pointed()));
        assert!(text.ends_with("\nshop = host=10.0.2.10 port=5432 dbname='shop'\n"), "{text}");
        let address = "10.0.2.10:6379".parse().unwrap();
        replace(&path, &plain_text(&pointed(), address)).unwrap();
        assert_eq!(read_with_address(&path).unwrap(), Some((pointed(), address)));
    }

    #[test]
    fn a_damaged_epoch_is_an_error_and_a_file_of_somebody_else_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("databases.ini");
        std::fs::write(&path, "shop = host=10.0.1.10\n").unwrap();
        assert_eq!(read(&path).unwrap(), None);
        std::fs::write(&path, "; tier0 epoch x region region1\n").unwrap();
        assert!(read(&path).is_err());
    }
}
