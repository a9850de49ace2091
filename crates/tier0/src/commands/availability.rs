//! `tier0 availability`: the account of a stack, or what a year would be like at the failure rates
//! that somebody names.

use std::process::ExitCode;

use anyhow::{Context, bail};
use tier0_core::availability::{Expected, YEAR_MS, available_in_a_year, expected_down_ms, percent};
use tier0_wire::AvailabilityBody;

use crate::api::Api;
use crate::cli::AvailabilityArgs;
use crate::render;

/// Below this a year has seven nines: the specification's 3.16 s, rounded down.
const SPECIFIED_MS: u64 = 3_155;

pub async fn run(args: &AvailabilityArgs) -> anyhow::Result<ExitCode> {
    if !args.events.is_empty() {
        return calculate(args);
    }
    let body: AvailabilityBody = Api::find(&args.read.target)?.get("/availability").await?;
    if args.read.json {
        super::print_json(&body)?;
    } else {
        render::availability(&body);
    }
    Ok(ExitCode::SUCCESS)
}

fn calculate(args: &AvailabilityArgs) -> anyhow::Result<ExitCode> {
    let events = args.events.iter().map(|text| parse(text)).collect::<anyhow::Result<Vec<_>>>()?;
    let down = expected_down_ms(&events);
    let available = percent(available_in_a_year(down.min(YEAR_MS)));
    if args.read.json {
        super::print_json(&serde_json::json!({
            "events": events, "down_ms_a_year": down, "available_percent": available,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for event in &events {
        println!(
            "{:<24} {:>9} a year, {:>9} s each: {:>9} s a year",
            event.name,
            thousandths(u128::from(event.in_a_thousand_years)),
            thousandths(u128::from(event.lasts_ms)),
            thousandths(event.thousandths_of_ms() / 1_000),
        );
    }
    println!("together                 {} s a year: {available} %", thousandths(down.into()));
    println!(
        "seven nines              {} s a year{}",
        thousandths(SPECIFIED_MS.into()),
        match down.checked_sub(SPECIFIED_MS).filter(|over| *over > 0) {
            Some(over) => format!(", {} s less than that", thousandths(over.into())),
            None => String::new(),
        }
    );
    println!(
        "This is arithmetic on the rates above; what a stack has had: tier0 availability, without \
         --event"
    );
    Ok(ExitCode::SUCCESS)
}

/// `NAME:PER_YEAR:SECONDS`.
fn parse(text: &str) -> anyhow::Result<Expected> {
    let parts: Vec<&str> = text.split(':').collect();
    let [name, per_year, seconds] = parts.as_slice() else {
        bail!("--event {text}: it must be NAME:PER_YEAR:SECONDS, as in region-lost:0.5:1.6");
    };
    let number = |what: &str, text: &str| {
        exact_thousandths(text).with_context(|| {
            format!(
                "--event {name}: {what} '{text}' is not a number from 0 to 31557600 with at \
                     most three decimals"
            )
        })
    };
    Ok(Expected {
        name: (*name).to_owned(),
        in_a_thousand_years: number("how often", per_year)?,
        lasts_ms: number("how long", seconds)?,
    })
}

/// A decimal number in thousandths; nothing is rounded.
fn exact_thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 8 || part.len() > 3 || !digits(whole) || !digits(part) {
        return None;
    }
    let value = whole.parse::<u64>().ok()? * 1_000 + format!("{part:0<3}").parse::<u64>().ok()?;
    (value <= YEAR_MS).then_some(value)
}

fn thousandths(value: u128) -> String {
    format!("{}.{:03}", value / 1_000, value % 1_000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn numbers_are_read_exactly_or_not_at_all() {
        for (text, expected) in
            [("1", Some(1_000)), ("0.3", Some(300)), ("12.05", Some(12_050)), ("0", Some(0))]
        {
            assert_eq!(exact_thousandths(text), expected, "{text}");
        }
        for text in ["", ".5", "1.2345", "-1", "1e3", "31557601", "999999999", "1.2.3", "+1"] {
            assert_eq!(exact_thousandths(text), None, "{text}");
        }
        let event = parse("region-lost:0.5:1.6").unwrap();
        assert_eq!((event.in_a_thousand_years, event.lasts_ms), (500, 1_600));
        assert!(parse("region-lost:1").is_err());
    }
}
