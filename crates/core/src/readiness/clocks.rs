//! The clocks of the agents' hosts agree with this one's. No decision rests on a clock; whoever
//! puts the logs of two regions side by side after an outage does.

use super::{Finding, Level, Question};

const CODE: &str = "clock-offset";

/// From here on log lines of two hosts cannot be put in order by their times.
const WARN_FROM_MS: u64 = 1_000;

pub fn check(question: &Question) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, None, sentence);
    let mut offsets = Vec::new();
    for region in [&question.record.writer, question.target] {
        let known = question.host(region).and_then(|_| question.seen.region(region));
        let Some(ahead) = known.and_then(|seen| seen.clock_ahead_ms) else {
            return finding(Level::Unknown, format!("the clock of {region} is not known"));
        };
        offsets.push((region, ahead));
    }
    let parts: Vec<String> = offsets
        .iter()
        .map(|(region, ahead)| {
            let side = if *ahead < 0 { "behind" } else { "ahead of" };
            let seconds = ahead.unsigned_abs() as f64 / 1000.0;
            format!("the clock of {region} is {seconds:.1} s {side} the orchestrator's")
        })
        .collect();
    let most = offsets.iter().map(|(_, ahead)| ahead.unsigned_abs()).max().unwrap_or(0);
    let level = if most >= WARN_FROM_MS { Level::Warn } else { Level::Pass };
    finding(level, parts.join(", ")).number(most as f64 / 1000.0)
}
