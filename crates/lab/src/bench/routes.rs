//! `lab bench --routes`: the built-in router, HAProxy in TCP mode and no proxy, one after the other
//! in every round, under pgbench and redis-benchmark, which know of neither; and what each proxy takes
//! for connections on which nothing happens.
//!
//! The proxies stand in the writer's region of a lab, the servers are those of the lab. What is
//! compared is the way of bytes: commits do not wait for a disk, since its noise would hide the
//! difference that is looked for. Left out: what clients see of a switch, which `lab bench` measures
//! through each route.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::comparison::{Comparison, Idle, Measured, Way, Workload};
use super::machine::{Build, Machine};
use super::settings::BenchArgs;
use super::statistics::median;
use crate::account::Account;
use crate::down::{self, Data};
use crate::files;
use crate::launch::{Launcher, Program, User};
use crate::ledger::{PostgresTarget, RedisTarget, Targets};
use crate::network::End;
use crate::placement::Place;
use crate::plan::Routers;
use crate::preflight::{self, Programs};
use crate::processes::{self, Identity};
use crate::progress::Progress;
use crate::signals::Interruption;
use crate::state::{Kind, LabState};
use crate::up::{Up, UpPlan, up};

const ROUNDS: usize = 90;
const QUICK_ROUNDS: usize = 3;
/// Short: what a run comes to depends on which core its processes were given, a third up or down, and only
/// many draws tell two per cent apart.
const RUN: Duration = Duration::from_secs(1);
/// Clients at once, of each kind.
const CLIENTS: usize = 16;
/// Requests of redis-benchmark at once, where it does not wait for each.
const PIPELINE: usize = 16;
/// Of pgbench's transactions one in so many is written down, for the median.
const SAMPLED: usize = 10;
const IDLE: usize = 1_000;
const CONNECT: Duration = Duration::from_secs(20);
/// How much longer than it should a client may take.
const GRACE: Duration = Duration::from_secs(60);

/// Measure, write the results, print them.
pub async fn run(arguments: &BenchArgs) -> Result<ExitCode> {
    let progress = Progress::begin();
    let which = &arguments.which;
    let mut plan = UpPlan::usual(which.instance, which.directory.as_deref())?;
    plan.size.routers = Routers::Each;
    let haproxy = preflight::on_path("haproxy");
    let haproxy = haproxy.context("haproxy is missing: apt-get install haproxy")?;
    let mut interruption = Interruption::listen()?;
    let begun = jiff::Timestamp::now().to_string();
    let build = Build::of(&plan.binary);
    let (machine, version) = (Machine::look().await, version(&haproxy).await?);
    progress.say(format!("the machine is {:.0} % idle", machine.idle_before * 100.0));
    let state = match up(&plan, progress).await? {
        Up::Already(state) => {
            bail!("a lab runs in {}: it is not measured", state.directory.display())
        }
        Up::Now(state) => state,
    };
    let rounds = if arguments.quick { QUICK_ROUNDS } else { ROUNDS };
    let measured = tokio::select! {
        measured = measure(&state, &haproxy, rounds, progress) => measured,
        signal = interruption.next() => Err(anyhow::anyhow!("interrupted by {signal}")),
    };
    down::stop(&plan.directory, &Account::unprivileged()?, Data::Remove, progress).await?;
    let (runs, idle) = measured?;
    let about = (build, machine, version);
    let results = Comparison::of(begun, about, (RUN.as_secs_f64(), CLIENTS), runs, idle);
    let path = results.write(&arguments.out)?;
    print!("{}", results.text());
    println!("\nresults: {}", path.display());
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    state: &LabState,
    haproxy: &Path,
    rounds: usize,
    progress: Progress,
) -> Result<(Vec<Measured>, Vec<Idle>)> {
    let bench = Bench::prepare(state, haproxy).await?;
    let mut runs = Vec::new();
    for round in 0..rounds {
        for workload in Workload::ALL {
            let mut ways = Way::ALL;
            if round % 2 == 1 {
                ways.reverse();
            }
            for way in ways {
                let (per_second, p50_us) = bench.run(workload, way).await?;
                progress.say(format!(
                    "round {} of {rounds}, {}, {}: {per_second:.0} a second, p50 {p50_us:.0} µs",
                    round + 1,
                    workload.name(),
                    way.name(),
                ));
                runs.push(Measured { round, workload, way, per_second, p50_us });
            }
        }
    }
    let idle = vec![bench.idle(Way::Haproxy).await?, bench.idle(Way::Router).await?];
    Ok((runs, idle))
}

/// Where a client connects, by each way.
#[derive(Debug, Clone, Copy)]
struct Ways {
    direct: SocketAddr,
    router: SocketAddr,
    haproxy: SocketAddr,
}

impl Ways {
    fn of(self, way: Way) -> SocketAddr {
        match way {
            Way::Direct => self.direct,
            Way::Router => self.router,
            Way::Haproxy => self.haproxy,
        }
    }
}

struct Bench {
    directory: PathBuf,
    programs: Programs,
    postgres: PostgresTarget,
    redis: RedisTarget,
    to_postgres: Ways,
    to_redis: Ways,
    router: Identity,
    haproxy: Identity,
}

impl Bench {
    async fn prepare(state: &LabState, haproxy: &Path) -> Result<Bench> {
        let programs = preflight::find_programs(&mut Vec::new()).context("programs of servers")?;
        let targets = Targets::of(&state.stack()?)?;
        let postgres = targets.postgres.first().context("the lab has no PostgreSQL")?.clone();
        let redis = targets.redis.first().context("the lab has no Redis")?.clone();
        let router = state
            .started
            .iter()
            .find(|one| one.kind == Kind::Router && one.site.as_str() == Place::Region1.name());
        let router = router.context("the lab has no router")?.process;
        let home = |all: &[SocketAddr]| all.first().copied().context("nothing in region1");
        let ways = |server: SocketAddr, router: SocketAddr, port: u16| Ways {
            direct: server,
            router,
            haproxy: SocketAddr::new(server.ip(), port),
        };
        let (server, port) = (home(&postgres.hosts)?, home(&postgres.routers)?);
        let to_postgres = ways(server, port, free_port(server)?);
        let (server, port) = (home(&redis.servers)?, home(&redis.routers)?);
        let to_redis = ways(server, port, free_port(server)?);
        let launcher = Launcher {
            instance: state.instance,
            directory: state.directory.clone(),
            account: Account::unprivileged()?,
            network: state.network,
        };
        let haproxy = start(haproxy, &launcher, &[to_postgres, to_redis])?;
        let directory = state.directory.join("comparison");
        files::create_directory(&directory, &launcher.account)?;
        let bench =
            Bench { directory, programs, postgres, redis, to_postgres, to_redis, router, haproxy };
        bench.initialise().await?;
        Ok(bench)
    }

    /// The tables of pgbench; and every way is there.
    async fn initialise(&self) -> Result<()> {
        let mut command = self.pgbench(Way::Direct);
        command.args(["--initialize", "--scale", "10", "--quiet"]);
        output(command, GRACE).await?;
        for way in Way::ALL {
            connected(self.to_postgres.of(way)).await?;
            self.greet(&mut connected(self.to_redis.of(way)).await?).await?;
        }
        Ok(())
    }

    /// Throughput a second and median in microseconds of one run.
    async fn run(&self, workload: Workload, way: Way) -> Result<(f64, f64)> {
        match workload {
            Workload::Select => self.run_pgbench(way, "--select-only").await,
            Workload::Writes => self.run_pgbench(way, "--skip-some-updates").await,
            Workload::Redis => self.run_redis(way, 1).await,
            Workload::RedisPipelined => self.run_redis(way, PIPELINE).await,
        }
    }

    fn pgbench(&self, way: Way) -> Command {
        let address = self.to_postgres.of(way);
        let target = &self.postgres;
        let mut command = Command::new(self.programs.postgres_directory.join("pgbench"));
        command
            .env("PGPASSWORD", target.password.expose())
            .env("PGOPTIONS", "-c synchronous_commit=off")
            .env("PGSSLMODE", "disable")
            .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
            .args(["--username", &target.user])
            .arg(&target.database);
        command
    }

    async fn run_pgbench(&self, way: Way, what: &str) -> Result<(f64, f64)> {
        let prefix = self.directory.join("transactions");
        let mut command = self.pgbench(way);
        command
            .args([what, "--no-vacuum", "--protocol", "prepared", "--log"])
            .args(["--time", &RUN.as_secs().to_string()])
            .args(["--client", &CLIENTS.to_string(), "--jobs", "1"])
            .arg(format!("--sampling-rate={}", 1.0 / SAMPLED as f64))
            .arg("--log-prefix")
            .arg(&prefix);
        let said = output(command, RUN + GRACE).await?;
        let per_second = said
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
            .with_context(|| format!("pgbench says no throughput: {said}"))?;
        let mut times = Vec::new();
        for entry in std::fs::read_dir(&self.directory).context("pgbench's log")? {
            let path = entry.context("pgbench's log")?.path();
            let text = std::fs::read_to_string(&path).context("pgbench's log")?;
            times.extend(
                text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()),
            );
            std::fs::remove_file(&path).context("pgbench's log")?;
        }
        Ok((per_second, median(&times).context("pgbench wrote no transaction down")?))
    }

    /// redis-benchmark counts requests, not time: a first run of a tenth says how many.
    async fn run_redis(&self, way: Way, pipeline: usize) -> Result<(f64, f64)> {
        let little = 2_000 * pipeline;
        let (per_second, _) = self.redis_benchmark(way, pipeline, little).await?;
        let requests = (per_second * RUN.as_secs_f64()) as usize;
        self.redis_benchmark(way, pipeline, requests.max(little)).await
    }

    async fn redis_benchmark(
        &self,
        way: Way,
        pipeline: usize,
        requests: usize,
    ) -> Result<(f64, f64)> {
        let address = self.to_redis.of(way);
        let mut command = Command::new("redis-benchmark");
        command
            .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
            .args(["-a", self.password()?, "-t", "set", "-r", "10000", "--csv"])
            .args(["-c", &CLIENTS.to_string(), "-P", &pipeline.to_string()])
            .args(["-n", &requests.to_string()]);
        let said = output(command, RUN + GRACE).await?;
        // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms", …
        let figures = said.lines().find(|line| line.starts_with("\"SET\"")).map(|line| {
            let cells = line.split(',').map(|cell| cell.trim_matches('"').parse::<f64>());
            cells.skip(1).filter_map(Result::ok).collect::<Vec<f64>>()
        });
        match figures.as_deref() {
            Some([per_second, _, _, p50_ms, ..]) => Ok((*per_second, p50_ms * 1e3)),
            _ => bail!("redis-benchmark says no throughput: {said}"),
        }
    }

    fn password(&self) -> Result<&str> {
        Ok(self.redis.password.as_ref().context("the lab's Redis has a password")?.expose())
    }

    /// Something comes back.
    async fn greet(&self, stream: &mut TcpStream) -> Result<()> {
        let password = self.password()?;
        let ask = format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{password}\r\n", password.len());
        stream.write_all(ask.as_bytes()).await?;
        let mut said = [0; 5];
        let read = tokio::time::timeout(CONNECT, stream.read_exact(&mut said)).await;
        read.context("no answer")??;
        if &said != b"+OK\r\n" {
            bail!("Redis does not take the password: {}", String::from_utf8_lossy(&said));
        }
        Ok(())
    }

    /// What a proxy takes for connections that were used once.
    async fn idle(&self, way: Way) -> Result<Idle> {
        let process = match way {
            Way::Router => self.router,
            Way::Haproxy => self.haproxy,
            Way::Direct => bail!("nothing stands between"),
        };
        let before_kib = pss_kib(process)?;
        let mut open = Vec::new();
        for _ in 0..IDLE {
            let mut stream = connected(self.to_redis.of(way)).await?;
            self.greet(&mut stream).await?;
            open.push(stream);
        }
        let with_kib = pss_kib(process)?;
        Ok(Idle { way, connections: open.len(), before_kib, with_kib })
    }
}

/// A port of a server's address where nobody listens.
fn free_port(server: SocketAddr) -> Result<u16> {
    let listener = std::net::TcpListener::bind((server.ip(), 0)).context("a free port")?;
    Ok(listener.local_addr().context("a free port")?.port())
}

/// A HAProxy that carries bytes to each of these servers, as its manual has it. For each connection it
/// wants two files, and it does not start where it may not have them.
fn start(program: &Path, launcher: &Launcher, all: &[Ways]) -> Result<Identity> {
    let mut text = "global\n  maxconn 2000\n\
                    defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1h\n  \
                    timeout server 1h\n  option clitcpka\n  option srvtcpka\n"
        .to_owned();
    for (number, ways) in all.iter().enumerate() {
        text.push_str(&format!(
            "listen way{number}\n  bind {}\n  server writer {}\n",
            ways.haproxy, ways.direct
        ));
    }
    let file = launcher.directory.join("haproxy.cfg");
    files::write_private(&file, text.as_bytes(), &launcher.account)?;
    launcher.start(&Program {
        path: program.to_owned(),
        arguments: vec!["-db".into(), "-f".into(), file.into()],
        environment: Vec::new(),
        log: launcher.directory.join("logs").join("haproxy.log"),
        end: End::Region1,
        user: User::Lab,
    })
}

/// What HAProxy calls itself.
async fn version(program: &Path) -> Result<String> {
    let mut command = Command::new(program);
    command.arg("-v");
    let said = output(command, GRACE).await?;
    let number =
        said.split_whitespace().find(|word| word.starts_with(|one: char| one.is_ascii_digit()));
    Ok(number.context("HAProxy says no version")?.to_owned())
}

/// The memory of a process, its part of what it shares.
fn pss_kib(process: Identity) -> Result<u64> {
    if !processes::is_running(process) {
        bail!("process {} has ended", process.pid);
    }
    let path = format!("/proc/{}/smaps_rollup", process.pid);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next());
    line.and_then(|kib| kib.parse().ok()).with_context(|| format!("{path} has no Pss"))
}

/// A connection, as soon as somebody listens.
async fn connected(address: SocketAddr) -> Result<TcpStream> {
    let deadline = Instant::now() + CONNECT;
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("connect to {address}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// What a program writes; it is ended where it takes too long.
async fn output(mut command: Command, limit: Duration) -> Result<String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(limit, command.output()).await;
    let output = ended.with_context(|| format!("{program} takes too long"))?;
    let output = output.with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
