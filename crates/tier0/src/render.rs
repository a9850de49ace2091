//! Tables and lines for people. Data goes to standard output; meaning survives without colour.

use comfy_table::{Cell, ContentArrangement, Table, presets};
use tier0_wire::{
    AutomaticStatus, AvailabilityBody, CheckBody, FindingBody, LogLine, OperationBody, PlanBody,
    RebuildPlanBody, StatusBody,
};

/// A plain table: no frame, so that it can be cut and pasted.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(Cell::new));
    table
}

fn print(table: &Table) {
    for line in table.to_string().lines() {
        println!("{}", line.trim_end());
    }
}

/// `tier0 status`.
pub fn status(body: &StatusBody) {
    let since =
        body.exposed_seconds.map(|seconds| format!(" for {seconds:.1} s")).unwrap_or_default();
    let reason =
        body.protection_reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    println!("stack       {}", body.stack);
    println!("writer      {}", body.current_region);
    println!("protection  {}{since}{reason}", body.protection);
    println!("record      epoch {}, revision {}", body.epoch, body.revision);
    automatic(&body.automatic);
    if let Some(availability) = &body.availability {
        let now = if availability.down_now { "; somebody is NOT SERVED now" } else { "" };
        println!(
            "downtime    {}, {} left of {} a year (since {}){now}",
            seconds(availability.down_in_a_year_ms as i64),
            seconds(availability.budget_left_ms),
            seconds(availability.objective_ms_a_year as i64),
            availability.since,
        );
    }
    if let Some(frozen) = &body.frozen {
        println!("FROZEN      {frozen}");
    }
    for (region, silent) in &body.agents {
        if let Some(why) = silent {
            println!("agent       {region}: {why}");
        }
    }
    if !body.orchestrators.is_empty() {
        println!("acting      {}", body.acting.as_deref().unwrap_or("nobody"));
    }
    for (site, silent) in &body.orchestrators {
        if let Some(why) = silent {
            println!("watching    {site}: {why}");
        }
    }
    for operation in body.operation.iter().chain(&body.repairs) {
        let node = operation.node.as_deref().unwrap_or(&operation.target_region);
        println!(
            "under way   {} of {node}, for {:.1} s ({})",
            operation.kind, operation.total_failover_time, operation.operation_id
        );
    }
    println!();
    let mut table = table(&["NODE", "ROLE", "STATE", "BEHIND", "ADDRESS", "DOING"]);
    for datastore in &body.datastores {
        for node in &datastore.nodes {
            let behind = match node.behind_bytes {
                Some(bytes) => format!("{bytes} B"),
                None => "-".to_owned(),
            };
            let doing = node.doing.clone().or(node.error.clone()).unwrap_or_default();
            table.add_row([&node.node, &node.role, &node.state, &behind, &node.address, &doing]);
        }
    }
    for route in &body.routes {
        let points_at = route.points_at.as_deref().unwrap_or("an unknown region");
        let doing = match (&route.error, route.waiting) {
            (Some(error), _) => error.clone(),
            (None, Some(waiting)) if waiting > 0 => {
                format!("points at {points_at}, {waiting} clients wait")
            }
            (None, _) => format!("points at {points_at}"),
        };
        table.add_row([
            route.route.as_str(),
            "route",
            route.state.as_str(),
            "-",
            "-",
            doing.as_str(),
        ]);
    }
    print(&table);
    println!();
    for datastore in &body.datastores {
        let members = match datastore.takeover.as_slice() {
            [] => String::new(),
            members => format!(", may be taken over by {}", members.join(", ")),
        };
        let mode = match datastore.protection_mode.as_deref() {
            Some("max-protection") => " (max-protection)",
            Some(_) | None => "",
        };
        println!("{}: {}{mode}{members}", datastore.name, datastore.protection);
        if let Some(explanation) = &datastore.explanation {
            println!("    {explanation}");
        }
    }
}

/// `tier0 availability`.
pub fn availability(body: &AvailabilityBody) {
    println!("since       {}, to {} ms", body.since, body.resolution_ms);
    println!(
        "objective   {} of downtime a year ({} %)",
        seconds(body.objective_ms_a_year as i64),
        body.objective_percent
    );
    println!("downtime    {} in the last year", seconds(body.down_in_a_year_ms as i64));
    println!("left        {}", seconds(body.budget_left_ms));
    println!(
        "one copy    {}, and {} at risk",
        seconds(body.exposed_ms as i64),
        seconds(body.at_risk_ms as i64)
    );
    println!();
    let mut table =
        table(&["WAY", "DOWN", "WINDOWS", "HELD", "LONGEST", "ERRORS", "UNKNOWN", "AVAILABLE"]);
    for way in &body.ways {
        let available = way.available_percent.as_deref().unwrap_or("-");
        table.add_row([
            way.way.clone(),
            seconds(way.down_ms as i64),
            way.windows_total.to_string(),
            seconds(way.held_ms as i64),
            format!("{} ms", way.longest_held_ms),
            way.errors.to_string(),
            seconds(way.unknown_ms as i64),
            format!("{available} %"),
        ]);
    }
    print(&table);
    for way in &body.ways {
        if let Some(since) = &way.down_since {
            println!("\nNOT SERVED  {} since {since}", way.way);
        }
        for window in &way.windows {
            let cause = match (&window.kind, &window.operation_id) {
                (Some(kind), Some(id)) => format!("{kind} {id}"),
                (_, _) => "unexplained".to_owned(),
            };
            println!("{} {:>6} ms  {}  {cause}", window.from, window.milliseconds, way.way);
        }
    }
}

/// Milliseconds as seconds.
fn seconds(milliseconds: i64) -> String {
    let sign = if milliseconds < 0 { "-" } else { "" };
    let size = milliseconds.unsigned_abs();
    format!("{sign}{}.{:03} s", size / 1000, size % 1000)
}

fn automatic(body: &AutomaticStatus) {
    let until = body.until.as_ref().map(|until| format!(" until {until}")).unwrap_or_default();
    let reason = if body.reason.is_empty() { String::new() } else { format!(": {}", body.reason) };
    println!("automatic   {}{until}, by {} since {}{reason}", body.mode, body.by, body.since);
    if let Some(explanation) = &body.explanation {
        println!("            {explanation}");
    }
    if let Some(near_miss) = &body.near_miss {
        println!("NEAR MISS   {} {}", near_miss.at, near_miss.sentence);
    }
}

/// `tier0 check`.
pub fn check(body: &CheckBody) {
    let mut table = table(&["LEVEL", "DATASTORE", "FINDING", "AGE", "CODE"]);
    for FindingBody { finding, .. } in &body.findings {
        let datastore = finding.datastore.as_ref().map(ToString::to_string);
        table.add_row([
            &finding.level.to_string(),
            datastore.as_deref().unwrap_or("-"),
            &finding.sentence,
            &finding.age_ms.map_or("-".to_owned(), |age| format!("{:.1} s", age as f64 / 1000.0)),
            &finding.code,
        ]);
    }
    print(&table);
    println!();
    if let Some(prediction) = &body.prediction {
        println!("{}", prediction.sentence);
    }
    if body.ready {
        println!("a switch to {} would begin now", body.target_region);
    } else {
        println!("a switch to {} would be refused now", body.target_region);
    }
}

/// `--plan`.
pub fn plan(body: &PlanBody) {
    let mut table = table(&["STEP", "DATASTORE", "WHAT", "AFTER"]);
    for step in &body.steps {
        let datastore = step.datastore.as_deref().unwrap_or("-");
        table.add_row([&step.step, datastore, &step.sentence, &step.after.join(", ")]);
    }
    print(&table);
    println!();
    check(&body.check);
}

/// `tier0 rebuild NODE --plan`.
pub fn plan_of_rebuild(body: &RebuildPlanBody) {
    let mut table = table(&["STEP", "WHAT"]);
    for step in &body.steps {
        table.add_row([&step.step, &step.sentence]);
    }
    print(&table);
    println!();
    println!("{} is made anew from {}", body.node, body.source);
    if body.steps.iter().any(|step| step.step == "follow") {
        println!("its old data directory is kept beside the new one; it joins again by itself");
    }
    if let Some(free) = body.disk_free {
        println!("{} MB are free there", free / 1_000_000);
    }
    if let Some(why) = &body.held {
        println!("the data that was left untouched is released by this: {why}");
    }
    match &body.refusal {
        None => println!("it would begin now"),
        Some(why) => println!("it would be refused now: {} ({})", why.detail, why.code),
    }
}

/// One operation, after it was asked for.
pub fn operation(body: &OperationBody) {
    println!(
        "{} to {}: {} in {:.3} s",
        body.kind, body.target_region, body.result, body.total_failover_time
    );
    let parts: Vec<String> = [
        "health_check",
        "prepare",
        "database_promotion",
        "redis_failover",
        "routing_update",
        "validation",
    ]
    .iter()
    .filter_map(|name| Some(format!("{name} {:.3}", body.steps.get(*name)?)))
    .collect();
    if !parts.is_empty() {
        println!("  {} (they overlap)", parts.join(", "));
    }
    if let Some(error) = &body.error {
        println!("  {error}");
    }
    for remark in &body.remarks {
        println!("  note: {remark}");
    }
    println!("  operation {}", body.operation_id);
}

/// `tier0 history`.
pub fn history(operations: &[OperationBody]) {
    let mut table =
        table(&["WHEN", "KIND", "FROM", "TO / NODE", "RESULT", "SECONDS", "BY", "OPERATION"]);
    for body in operations {
        let about = body.node.as_deref().unwrap_or(&body.target_region);
        table.add_row([
            &body.timestamp,
            &body.kind,
            &body.from_region,
            about,
            &body.result,
            &format!("{:.3}", body.total_failover_time),
            &body.requested_by,
            &body.operation_id,
        ]);
    }
    print(&table);
}

/// `tier0 explain`.
pub fn explain(body: &OperationBody) {
    println!("{} {}", body.kind, body.operation_id);
    println!("  from {} to {}", body.from_region, body.target_region);
    if let Some(node) = &body.node {
        println!("  node {node}");
    }
    println!("  asked for by {}", body.requested_by);
    if !body.reason.is_empty() {
        println!("  because {}", body.reason);
    }
    println!("  {} after {:.3} s, at {}", body.result, body.total_failover_time, body.timestamp);
    if let Some(error) = &body.error {
        let code = body.code.as_deref().unwrap_or("-");
        println!("  {error} ({code})");
    }
    if let Some(at) = body.point_of_no_return_ms {
        println!("  point of no return after {at:.1} ms");
    }
    for remark in &body.remarks {
        println!("  note: {remark}");
    }
    println!();
    let mut table = table(&["BEGIN ms", "END ms", "STEP", "DATASTORE", "OUTCOME"]);
    for step in &body.timeline {
        let end = step.end_ms.map_or("-".to_owned(), |end| format!("{end:.1}"));
        table.add_row([
            &format!("{:.1}", step.begin_ms),
            &end,
            &step.step,
            step.datastore.as_deref().unwrap_or("-"),
            &step.outcome,
        ]);
    }
    print(&table);
}

/// One line of `tier0 logs`, with the time of day in UTC.
pub fn log_line(line: &LogLine) -> String {
    let day_ms = line.at_ms.rem_euclid(86_400_000);
    let (seconds, ms) = (day_ms / 1000, day_ms % 1000);
    let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{time}.{ms:03} {:<20} {:<5} {}", line.role, line.level, line.text)
}
