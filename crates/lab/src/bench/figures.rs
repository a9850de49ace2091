//! The figures as README.md and docs/routes.md show them, between two marks. Every number in it comes
//! from one results file, which it names.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::run::Section;
use super::statistics::Figures;
use super::summary::{Group, SectionSummary, Summary};
use super::table::SPECIFIED;
use crate::ledger::WritePath;

/// The lines before and after a block.
#[derive(Debug, Clone, Copy)]
pub struct Marks(&'static str, &'static str);

/// Around the figures of switches.
pub const SWITCHES: Marks = Marks("<!-- figures:begin -->", "<!-- figures:end -->");

/// Around those of the reference backend.
pub const READINGS: Marks = Marks("<!-- readings:begin -->", "<!-- readings:end -->");

/// Around the comparison of routes.
pub const ROUTES: Marks = Marks("<!-- routes:begin -->", "<!-- routes:end -->");

/// The block for a results file, without the marks.
pub fn render(summary: &Summary, file_name: &str) -> String {
    let mut text = origin(summary, file_name);
    let switches = summary.section(Section::Switches);
    let killed = summary.section(Section::Killed);
    let measured: Vec<(&str, &SectionSummary)> = [("switch", switches), ("region killed", killed)]
        .into_iter()
        .filter_map(|(name, section)| Some((name, section?)))
        .collect();
    if !measured.is_empty() {
        text.push_str(&columns(&measured));
        text.push_str(&clients(&measured));
    }
    for (_, section) in &measured {
        text.push_str(&ledger(section));
    }
    text.push_str(&large(summary));
    text.push_str(&outages(summary));
    text
}

/// The text of a file with the block between these marks replaced.
pub fn replace(document: &str, marks: Marks, block: &str) -> Result<String> {
    let (before, after) = around(document, marks)?;
    let Marks(begin, end) = marks;
    Ok(format!("{before}{begin}\n{block}{end}{after}"))
}

/// The block that stands between the marks.
pub fn block(document: &str, marks: Marks) -> Result<&str> {
    let (before, after) = around(document, marks)?;
    let begin = before.len() + marks.0.len();
    let end = document.len() - after.len() - marks.1.len();
    Ok(document[begin..end].trim_start_matches('\n'))
}

/// Write a block into a document.
pub fn write(document: &Path, marks: Marks, block: &str) -> Result<()> {
    let text = std::fs::read_to_string(document)
        .with_context(|| format!("read {}", document.display()))?;
    let text = replace(&text, marks, block)
        .with_context(|| format!("{} cannot take figures", document.display()))?;
    std::fs::write(document, text).with_context(|| format!("write {}", document.display()))
}

fn around(document: &str, Marks(begin, end): Marks) -> Result<(&str, &str)> {
    match (document.split_once(begin), document.split_once(end)) {
        (Some((before, _)), Some((until, after))) if before.len() < until.len() => {
            Ok((before, after))
        }
        _ => bail!("it has no lines '{begin}' and '{end}', in this order"),
    }
}

fn origin(summary: &Summary, file_name: &str) -> String {
    let machine = &summary.machine;
    let part = match &summary.cut_short {
        Some(why) => format!(" It was cut short: {why}."),
        None => String::new(),
    };
    format!(
        "Measured {} at {} on {} cores ({}), {} GiB, Linux {}, \
         PostgreSQL {}, Redis {}. All processes, the clients too, share the machine, which was \
         {:.0} % idle in the second before. {} PostgreSQL and {} Redis writers, {} writes a second \
         each, wrote all the time.{part} [All figures](bench/results/{file_name}), [every \
         run](bench/results/{file_name}l).\n\n",
        summary.begun.split('T').next().unwrap_or_default(),
        summary.build.words(),
        machine.cores,
        machine.processor,
        machine.memory_mib.div_ceil(1024),
        machine.kernel,
        machine.postgres,
        machine.redis,
        machine.idle_before * 100.0,
        summary.settings.postgres_writers,
        summary.settings.redis_writers,
        summary.settings.rate,
    )
}

fn columns(measured: &[(&str, &SectionSummary)]) -> String {
    let mut text = "| seconds | specification: target | typical |".to_owned();
    let mut line = "|---|---:|---:|".to_owned();
    for (name, section) in measured {
        text.push_str(&format!(" {name}, {} runs: min | median | p99 | max |", section.succeeded));
        line.push_str("---:|---:|---:|---:|");
    }
    let mut text = format!("{text}\n{line}\n");
    let prepare = std::iter::once(("prepare", Group::Column, None));
    let specified = SPECIFIED.iter().map(|one| {
        let group = if one.name == "total" { Group::Total } else { Group::Column };
        (one.name, group, Some((one.target, one.typical)))
    });
    for (name, group, limits) in prepare.chain(specified) {
        let (target, typical) = limits.map_or_else(
            || ("–".to_owned(), "–".to_owned()),
            |(target, typical)| (format!("{target:.1}"), format!("{typical:.1}")),
        );
        text.push_str(&format!("| {} | {target} | {typical} |", name.replace('_', " ")));
        for (_, section) in measured {
            text.push_str(&cells(section.figures(group, name), seconds));
        }
        text.push('\n');
    }
    text.push_str(
        "\nSteps run side by side, so they do not add up to the total. With fewer than a hundred \
         runs p99 is the maximum.\n\n",
    );
    text
}

fn clients(measured: &[(&str, &SectionSummary)]) -> String {
    let mut text = "| longest wait of a client, milliseconds |".to_owned();
    let mut line = "|---|".to_owned();
    for (name, _) in measured {
        text.push_str(&format!(" {name}: min | median | p99 | max |"));
        line.push_str("---:|---:|---:|---:|");
    }
    let mut text = format!("{text}\n{line}\n");
    for path in [WritePath::Postgres, WritePath::Redis] {
        text.push_str(&format!("| {} |", path.name()));
        for (_, section) in measured {
            text.push_str(&cells(section.figures(Group::Client, path.name()), milliseconds));
        }
        text.push('\n');
    }
    text.push_str("\nFrom when a write was due until it was acknowledged.\n\n");
    text
}

fn ledger(section: &SectionSummary) -> String {
    let title = section.section.title();
    let failed = section.runs - section.succeeded;
    let failed =
        if failed > 0 { format!(" **{failed} operations failed.**") } else { String::new() };
    let Some(ledger) = &section.ledger else {
        return format!("- {title}: the ledger was not checked.{failed}\n");
    };
    let lost = ledger.broken_promises(section.section);
    let unwaited = match (section.section, ledger.missing.get(&WritePath::Redis)) {
        (Section::Killed, Some(count)) => format!(
            ", and {count} Redis writes that no replica had acknowledged (`WAIT` is what promises \
             more)"
        ),
        _ => String::new(),
    };
    let again = section.figures(Group::After, "protected again").map_or_else(String::new, |one| {
        let since = if section.section == Section::Killed {
            " after the killed region came back"
        } else {
            " after the answer"
        };
        format!(
            " Protected again {:.1} s{since} (median; at most {:.1} s).",
            one.median / 1e3,
            one.max / 1e3
        )
    });
    format!(
        "- {title}: {} writes acknowledged, {lost} lost{unwaited}; {} without an answer.{again}{failed}\n",
        ledger.all_acknowledged(),
        ledger.unknown,
    )
}

fn large(summary: &Summary) -> String {
    let (Some(bytes), Some(large)) = (summary.large_bytes, summary.section(Section::Large)) else {
        return String::new();
    };
    let gibibytes = bytes as f64 / f64::from(1 << 30);
    let mut text = format!(
        "- With a database of {gibibytes:.1} GiB: {}. With the small one: {}.\n",
        degradation(large),
        summary.section(Section::Switches).map_or("not measured".to_owned(), degradation),
    );
    if let Some(open) = summary.section(Section::LargeOpen) {
        let committed = open.open_committed.unwrap_or_default();
        text.push_str(&format!(
            "- With that and a 2 s transaction open at the command: {}. {committed} of {} such \
             transactions were committed, the others were ended by the switch and told so.\n",
            degradation(open),
            open.runs,
        ));
    }
    text
}

/// How long nobody was served after a fault.
fn outages(summary: &Summary) -> String {
    let Some(first) = summary.outages.first() else { return String::new() };
    let mut text = format!(
        "\n| nobody served, milliseconds, {} | runs | PostgreSQL: median | worst | Redis: median | \
         worst |\n|---|---:|---:|---:|---:|---:|\n",
        first.commander.name()
    );
    for one in &summary.outages {
        text.push_str(&format!(
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} |\n",
            one.case.title(),
            one.postgres.count,
            one.postgres.median,
            one.postgres.max,
            one.redis.median,
            one.redis.max
        ));
    }
    for one in &summary.skipped {
        text.push_str(&format!("| {one} | – | – | – | – | – |\n"));
    }
    text.push_str(
        "\nSeen by a prober outside both regions that tries a write on both sides every 5 ms: from \
         the last accepted write before the fault to the first accepted one after it. A silent \
         region is one whose packets vanish.\n",
    );
    text
}

/// What a large database changes: the total, how much of it passes while clients still write, and
/// how long they wait.
fn degradation(section: &SectionSummary) -> String {
    let figures = |group, name: &str| {
        section.figures(group, name).map_or("not measured".to_owned(), |one| {
            format!("{:.3} s median, {:.3} s at most", one.median / 1e3, one.max / 1e3)
        })
    };
    format!(
        "total {} ({} runs), of it prepare, while clients write on, {}; longest wait of a \
         PostgreSQL client {}",
        figures(Group::Total, "total"),
        section.succeeded,
        figures(Group::Column, "prepare"),
        figures(Group::Client, WritePath::Postgres.name()),
    )
}

fn cells(figures: Option<Figures>, format: fn(f64) -> String) -> String {
    let cells = figures.map_or_else(
        || ["–".to_owned(), "–".to_owned(), "–".to_owned(), "–".to_owned()],
        |one| [format(one.min), format(one.median), format(one.p99), format(one.max)],
    );
    format!(" {} |", cells.join(" | "))
}

fn seconds(milliseconds: f64) -> String {
    format!("{:.3}", milliseconds / 1_000.0)
}

fn milliseconds(milliseconds: f64) -> String {
    format!("{milliseconds:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_replaced_and_found_again() {
        let Marks(begin, end) = READINGS;
        let document = format!("# a\n{begin}\nold\n{end}\nrest\n");
        let new = replace(&document, READINGS, "new\n").unwrap();
        assert_eq!(new, format!("# a\n{begin}\nnew\n{end}\nrest\n"));
        assert_eq!(block(&new, READINGS).unwrap(), "new\n");
        assert!(replace("no marks", READINGS, "new\n").is_err());
        assert!(replace(&document, SWITCHES, "new\n").is_err());
    }
}
