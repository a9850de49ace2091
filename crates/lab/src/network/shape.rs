//! What a link does to packets in one direction, and the words in which an operator says it.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Whether anything passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flow {
    /// As the rest of the settings say.
    #[default]
    Open,
    /// Nothing: packets vanish, and nobody is told.
    Cut,
}

/// Which TCP connections pass. Everything that is not TCP passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Connections {
    /// All.
    #[default]
    All,
    /// Those that are open: packets that open one vanish.
    Open,
    /// Those that are opened from now on: packets of all others vanish.
    New,
}

/// The settings of one direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shape {
    /// Whether anything passes.
    pub flow: Flow,
    /// How much later each packet arrives.
    pub delay: Delay,
    /// By how much more or less than `delay`, at random. Packets never overtake each other.
    pub jitter: Delay,
    /// How many packets vanish.
    pub loss: Loss,
    /// How much fits through; `None` for whatever the machine can do.
    pub rate: Option<Rate>,
    /// How many packets arrive twice.
    pub doubled: Loss,
    /// How many TCP packets end their connection.
    pub reset: Loss,
    /// The largest packet that passes, in bytes; larger ones vanish, and nobody is told.
    pub largest: Option<u16>,
    /// Which connections pass.
    pub connections: Connections,
}

/// A time that a packet is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Delay {
    microseconds: u32,
}

/// The share of packets to which something happens, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Loss {
    millionths: u32,
}

/// Bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    bits: u64,
}

/// A change of settings: what is not named stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Change {
    /// New flow.
    pub flow: Option<Flow>,
    /// New delay.
    pub delay: Option<Delay>,
    /// New jitter.
    pub jitter: Option<Delay>,
    /// New loss.
    pub loss: Option<Loss>,
    /// New rate.
    pub rate: Option<Rate>,
    /// New share that arrives twice.
    pub doubled: Option<Loss>,
    /// New share that ends its connection.
    pub reset: Option<Loss>,
    /// New largest packet.
    pub largest: Option<u16>,
    /// Other connections pass.
    pub connections: Option<Connections>,
}

impl Change {
    /// Let nothing pass, or let pass what the other settings let.
    pub fn flow(flow: Flow) -> Change {
        Change { flow: Some(flow), ..Change::default() }
    }

    /// The settings after it.
    pub fn applied_to(self, shape: Shape) -> Shape {
        Shape {
            flow: self.flow.unwrap_or(shape.flow),
            delay: self.delay.unwrap_or(shape.delay),
            jitter: self.jitter.unwrap_or(shape.jitter),
            loss: self.loss.unwrap_or(shape.loss),
            rate: self.rate.or(shape.rate),
            doubled: self.doubled.unwrap_or(shape.doubled),
            reset: self.reset.unwrap_or(shape.reset),
            largest: self.largest.or(shape.largest),
            connections: self.connections.unwrap_or(shape.connections),
        }
    }
}

impl Shape {
    /// In words.
    pub fn text(&self) -> String {
        if self.flow == Flow::Cut {
            return "cut: everything vanishes".to_owned();
        }
        let mut parts = Vec::new();
        if self.delay.microseconds > 0 {
            let jitter = match self.jitter.microseconds {
                0 => String::new(),
                _ => format!(" ± {}", self.jitter.text()),
            };
            parts.push(format!("{}{jitter}", self.delay.text()));
        }
        let shares =
            [(self.loss, "lost"), (self.doubled, "twice"), (self.reset, "end their connection")];
        for (share, what) in shares.into_iter().filter(|(share, _)| share.millionths > 0) {
            parts.push(format!("{} % {what}", f64::from(share.millionths) / 1e4));
        }
        parts.extend(self.rate.map(Rate::text));
        parts.extend(self.largest.map(|bytes| format!("at most {bytes} bytes")));
        match self.connections {
            Connections::All => {}
            Connections::Open => parts.push("open connections only".to_owned()),
            Connections::New => parts.push("new connections only".to_owned()),
        }
        if parts.is_empty() { "plain".to_owned() } else { parts.join(", ") }
    }
}

impl Delay {
    /// As a time.
    pub fn time(self) -> Duration {
        Duration::from_micros(u64::from(self.microseconds))
    }

    fn text(self) -> String {
        format!("{} ms", f64::from(self.microseconds) / 1e3)
    }
}

impl Loss {
    /// Whether it happens to a packet for which this number, anything below a million, was drawn.
    pub fn takes(self, drawn: u32) -> bool {
        drawn < self.millionths
    }
}

impl Rate {
    /// How long this many bytes take to be sent.
    pub fn time_of(self, bytes: usize) -> Duration {
        let bits = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(8);
        Duration::from_nanos(bits.saturating_mul(1_000_000_000) / self.bits.max(1))
    }

    fn text(self) -> String {
        match self.bits {
            bits if bits % 1_000_000 == 0 => format!("{} Mbit/s", bits / 1_000_000),
            bits => format!("{} kbit/s", bits as f64 / 1e3),
        }
    }
}

/// A number with its unit, apart.
fn number_and_unit(text: &str) -> Result<(f64, &str)> {
    let end = text.find(|sign: char| !sign.is_ascii_digit() && sign != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number =
        number.parse().with_context(|| format!("'{text}' does not begin with a number"))?;
    Ok((number, unit.trim()))
}

impl FromStr for Delay {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Delay> {
        let (number, unit) = number_and_unit(text)?;
        let microseconds = match unit {
            "us" => number,
            "ms" => number * 1e3,
            "s" => number * 1e6,
            _ => bail!("'{text}' is not a time such as 40ms"),
        };
        if microseconds > 60e6 {
            bail!("{text} is longer than a minute");
        }
        Ok(Delay { microseconds: microseconds.round() as u32 })
    }
}

impl FromStr for Loss {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Loss> {
        match number_and_unit(text)? {
            (percent, "%") if percent <= 100.0 => {
                Ok(Loss { millionths: (percent * 1e4).round() as u32 })
            }
            _ => bail!("'{text}' is not a share such as 2%"),
        }
    }
}

impl FromStr for Rate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Rate> {
        let (number, unit) = number_and_unit(text)?;
        let bits = match unit {
            "kbit" => number * 1e3,
            "mbit" => number * 1e6,
            "gbit" => number * 1e9,
            _ => bail!("'{text}' is not a rate such as 100mbit"),
        };
        if bits < 1e3 {
            bail!("{text} is less than a kilobit per second");
        }
        Ok(Rate { bits: bits.round() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_said() {
        let change = Change {
            delay: Some("40ms".parse().unwrap()),
            jitter: Some("1.5ms".parse().unwrap()),
            loss: Some("2%".parse().unwrap()),
            rate: Some("100mbit".parse().unwrap()),
            doubled: Some("1%".parse().unwrap()),
            largest: Some(600),
            connections: Some(Connections::Open),
            ..Change::default()
        };
        let shape = change.applied_to(Shape::default());
        assert_eq!(
            shape.text(),
            "40 ms ± 1.5 ms, 2 % lost, 1 % twice, 100 Mbit/s, at most 600 bytes, open connections only"
        );
        assert_eq!(shape.delay.time(), Duration::from_millis(40));
        assert!(shape.loss.takes(19_999) && !shape.loss.takes(20_000));
        assert_eq!("8kbit".parse::<Rate>().unwrap().time_of(1_000), Duration::from_secs(1));
        let cut = Change::flow(Flow::Cut).applied_to(shape);
        assert_eq!(cut.text(), "cut: everything vanishes");
        assert_eq!(Change::flow(Flow::Open).applied_to(cut), shape);
        assert_eq!(Shape::default().text(), "plain");
        for wrong in ["40", "ms", "-1ms", "2m", "61s"] {
            assert!(wrong.parse::<Delay>().is_err(), "{wrong}");
        }
        assert!("101%".parse::<Loss>().is_err() && "2".parse::<Loss>().is_err());
        assert!("0kbit".parse::<Rate>().is_err() && "5mb".parse::<Rate>().is_err());
    }
}
