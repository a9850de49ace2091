//! The `tier0` binary: the roles and the operator's commands. One file per command.

mod api;
mod cli;
mod commands;
mod exit;
mod render;

use std::process::ExitCode;

use clap::Parser;

/// Let a reader that goes away, as in `tier0 status | head`, end the program without a word.
/// `println!` panics then, and asking for the usual signal instead would need unsafe code.
fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.to_string().contains("failed printing to stdout: Broken pipe") {
            std::process::exit(0);
        }
        usual(panic);
    }));
}

fn main() -> ExitCode {
    end_with_the_reader();
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the runtime: {error}");
            return exit::Exit::Internal.into();
        }
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
