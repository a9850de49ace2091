//! The detection window against what was measured: round trips to agents, commits of their probes,
//! and silences that a move would have been wrong about.

use crate::words::Moment;

use super::{Finding, Level, Question};

const CODE: &str = "detection-window";

/// How many windows a commit of a probe may take before its server counts as hanging.
const HANG_WINDOWS: u32 = 2;

pub fn check(question: &Question) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, None, sentence);
    let set = question.settings.limits.silence;
    if let Some(alarm) = question.timing.false_alarm(question.now) {
        let silent = alarm.silent.as_millis();
        let sentence = format!(
            "{} looked dead from everywhere for {silent} ms and was heard again {} ago, nothing had \
             ended: with silence_ms at {} ms the writer would have been moved",
            alarm.region,
            ago(question.now, alarm.at),
            set.as_millis()
        );
        return finding(Level::Warn, sentence).number(silent as f64);
    }
    let Some((region, slowest)) = question.timing.slowest() else {
        let sentence = format!("silence_ms is {} ms; nothing was measured yet", set.as_millis());
        return finding(Level::Pass, sentence);
    };
    let p999 = slowest.p999.as_millis();
    let measured = format!(
        "all but one of a thousand round trips to {region} took at most {p999} ms ({} counted)",
        slowest.count
    );
    if slowest.p999 > set {
        let sentence = format!(
            "silence_ms is {} ms, and {measured}: {p999} ms are waited before it counts as silent",
            set.as_millis()
        );
        return finding(Level::Warn, sentence).number(p999 as f64);
    }
    let slow = question.timing.probes().max_by_key(|(_, quantiles)| quantiles.p999);
    if let Some((node, quantiles)) = slow.filter(|(_, it)| it.p999 >= set * HANG_WINDOWS) {
        let took = quantiles.p999.as_millis();
        let sentence = format!(
            "all but one of a thousand commits on {node} took at most {took} ms; with silence_ms at \
             {} ms one that takes {} ms counts as hanging",
            set.as_millis(),
            (set * HANG_WINDOWS).as_millis()
        );
        return finding(Level::Warn, sentence).number(took as f64);
    }
    let sentence = format!("silence_ms is {} ms; {measured}", set.as_millis());
    finding(Level::Pass, sentence).number(p999 as f64)
}

fn ago(now: Moment, at: Moment) -> String {
    match now.since(at).as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}
