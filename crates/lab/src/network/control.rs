//! How the links of a running lab are told and asked: one JSON line over a socket in its directory,
//! and one back. An answer means that it is so from now on.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::End;
use super::forwarder::Lanes;
use super::lane::Counts;
use super::shape::{Change, Shape};

const LIMIT: Duration = Duration::from_secs(5);
const LONGEST: u64 = 1 << 20;

/// What is to become of some lanes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Which: from here to there.
    pub lanes: Vec<(End, End)>,
    /// What.
    pub what: What,
}

/// What becomes of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Some settings are others.
    Change(Change),
    /// It is plain again.
    Restore,
}

/// One lane as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneView {
    /// From here.
    pub from: End,
    /// To here.
    pub to: End,
    /// Its settings.
    pub shape: Shape,
    /// What it has carried.
    pub counts: Counts,
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("links.sock")
}

/// Give orders to the links of the lab in `directory`, or none, to see how they are.
pub fn ask(directory: &Path, orders: &[Order]) -> Result<Vec<LaneView>> {
    let path = socket(directory);
    let talk = || -> Result<Vec<LaneView>> {
        let mut stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let mut line = serde_json::to_vec(orders)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        serde_json::from_str(&answer).map_err(|_| anyhow!("they answered '{}'", answer.trim()))
    };
    talk().with_context(|| format!("ask the links at {}", path.display()))
}

/// Answer, on a thread, for as long as this process lives.
pub fn serve(directory: &Path, lanes: Arc<Lanes>) -> Result<()> {
    let path = socket(directory);
    if path.symlink_metadata().is_ok() {
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    let listener =
        UnixListener::bind(&path).with_context(|| format!("listen at {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("close {} to others", path.display()))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Err(error) = answer(stream, &lanes) {
                eprintln!("an order was not understood: {error:#}");
            }
        }
    });
    Ok(())
}

fn answer(mut stream: UnixStream, lanes: &Lanes) -> Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut line = String::new();
    BufReader::new((&mut stream).take(LONGEST)).read_line(&mut line)?;
    let orders: Vec<Order> = match serde_json::from_str(&line) {
        Ok(orders) => orders,
        Err(error) => {
            writeln!(stream, "{error}")?;
            return Err(error.into());
        }
    };
    let mut text = serde_json::to_vec(&lanes.obey(&orders))?;
    text.push(b'\n');
    Ok(stream.write_all(&text)?)
}
