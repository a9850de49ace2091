//! Places orders and says what it met. Usage: `cargo run -p tier0-example -- DSN [COUNT]`, with a DSN
//! as in `host=10.0.1.10,10.0.2.10 port=5432,5432 user=shop password=… dbname=shop`.

use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dsn = arguments.next().ok_or("usage: tier0-example DSN [COUNT]")?;
    let count = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let placed = tier0_example::place_orders(&dsn, "example", count, Duration::from_millis(20));
    let report = placed.await?;
    println!(
        "{} orders placed, {} attempts made again, longest wait {} ms",
        report.placed,
        report.again,
        report.longest.as_millis()
    );
    Ok(())
}
