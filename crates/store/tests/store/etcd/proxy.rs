//! A TCP proxy before one member, which can keep a request back, or swallow its answer.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What becomes of what comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It goes through, and so does the answer.
    Pass,
    /// Requests wait, also after who sent them is gone, until [`Proxy::release`].
    HoldRequests,
    /// Requests go through, answers do not.
    SwallowAnswers,
}

#[derive(Clone)]
pub struct Proxy {
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    released: bool,
    connections: usize,
    held: usize,
    swallowed: usize,
    /// What the member said to requests that were held.
    late: Vec<String>,
}

impl Proxy {
    /// Before this member. Its threads end with the test program.
    pub fn before(member: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            mode: Mode::Pass,
            released: false,
            connections: 0,
            held: 0,
            swallowed: 0,
            late: Vec::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let proxy = Proxy { address, shared: Arc::clone(&shared) };
        let member = member.strip_prefix("http://").unwrap().to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (shared, member) = (Arc::clone(&shared), member.clone());
                shared.state.lock().unwrap().connections += 1;
                std::thread::spawn(move || {
                    // A connection that ends is no failure of the proxy's.
                    let _ = shared.carry(client?, TcpStream::connect(member)?);
                    Ok::<_, std::io::Error>(())
                });
            }
        });
        proxy
    }

    pub fn set(&self, mode: Mode) {
        self.shared.state.lock().unwrap().mode = mode;
    }

    pub fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().connections
    }

    pub fn swallowed(&self) -> usize {
        self.shared.state.lock().unwrap().swallowed
    }

    /// Send on what was held back, and answer what the member said to each.
    pub fn release(&self) -> Vec<String> {
        let mut state = self.shared.state.lock().unwrap();
        assert!(state.held > 0, "nothing was held");
        state.released = true;
        self.shared.changed.notify_all();
        let limit = Duration::from_secs(30);
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| state.late.len() < state.held)
            .unwrap();
        assert!(!waited.1.timed_out(), "a late request was not answered");
        state = waited.0;
        state.late.clone()
    }
}

impl Shared {
    fn carry(
        self: Arc<Shared>,
        mut client: TcpStream,
        mut member: TcpStream,
    ) -> std::io::Result<()> {
        let (back, from) = (client.try_clone()?, member.try_clone()?);
        let shared = Arc::clone(&self);
        std::thread::spawn(move || shared.carry_back(from, back));
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = client.read(&mut buffer)?;
            if count == 0 {
                return member.shutdown(Shutdown::Both);
            }
            if self.state.lock().unwrap().mode == Mode::HoldRequests {
                let mut request = buffer[..count].to_vec();
                while !is_whole(&request) {
                    let count = client.read(&mut buffer)?;
                    assert!(count > 0, "the sender gave up before it had sent all");
                    request.extend_from_slice(&buffer[..count]);
                }
                return self.deliver_late(&request, &member.peer_addr()?.to_string());
            }
            member.write_all(&buffer[..count])?;
        }
    }

    fn carry_back(&self, mut member: TcpStream, mut client: TcpStream) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = member.read(&mut buffer) {
            let mut state = self.state.lock().unwrap();
            if state.mode == Mode::SwallowAnswers {
                state.swallowed += 1;
                continue;
            }
            drop(state);
            if client.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    }

    /// Over a connection of its own, whose end is the end of the answer.
    fn deliver_late(&self, request: &[u8], member: &str) -> std::io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.held += 1;
        while !state.released {
            state = self.changed.wait(state).unwrap();
        }
        drop(state);
        let mut member = TcpStream::connect(member)?;
        let head = head_length(request).unwrap() - 2;
        member.write_all(&request[..head])?;
        member.write_all(b"Connection: close\r\n")?;
        member.write_all(&request[head..])?;
        let mut answer = String::new();
        member.read_to_string(&mut answer)?;
        self.state.lock().unwrap().late.push(answer);
        self.changed.notify_all();
        Ok(())
    }
}

/// How long the head of a request is, with the empty line that ends it.
fn head_length(request: &[u8]) -> Option<usize> {
    request.windows(4).position(|four| four == b"\r\n\r\n").map(|position| position + 4)
}

/// Whether all of a request is there.
fn is_whole(request: &[u8]) -> bool {
    let Some(head) = head_length(request) else { return false };
    let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    request.len() >= head + length.unwrap().trim().parse::<usize>().unwrap()
}
