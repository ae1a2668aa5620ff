//! How ranks find each other.
//!
//! ```text
//! each rank r > 0 ─ Hello { rank, size, port } ─▶ rank 0 ─ Go { job, addresses } ─▶ each
//! each rank r     ─ Peer { job, rank, bulk } ─▶ each rank below it, twice
//! ```
//!
//! Whoever comes before rank 0 listens, or talks to it while it makes the communicator before this one, is
//! closed without an answer, and tries again.

#![forbid(unsafe_code)]

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::Fault;
use super::callers::Callers;
use super::channel::{Channel, Mailbox};
use super::talk::{hear, say};
use super::transport;
use crate::reduce::Rendezvous;

/// How often what is not there yet is asked for again.
pub(super) const AGAIN: Duration = Duration::from_millis(10);
/// How long a stranger, who says nothing, or not all of it, is listened to.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// EMFILE and ENFILE: a process, or all of them, may open no more files.
const NO_MORE_FILES: [i32; 2] = [24, 23];

/// To rank 0.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    /// What this is, and of which version.
    protocol: String,
    rank: usize,
    size: usize,
    /// Where this rank listens.
    port: u16,
}

/// From rank 0.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Answer {
    /// All have come: what tells this communicator from others, and where ranks 1 and up listen.
    Go(u64, Vec<(String, u16)>),
    /// They will not.
    Stop(Fault),
}

/// To a rank below.
#[derive(Debug, Serialize, Deserialize)]
struct Peer {
    job: u64,
    rank: usize,
    bulk: bool,
}

fn protocol() -> String {
    format!("halfstep {}", env!("CARGO_PKG_VERSION"))
}

/// Until the deadline, but not for longer than this.
pub(super) fn left(deadline: Instant, most: Duration) -> Duration {
    // A time of 0 would mean for ever.
    deadline.saturating_duration_since(Instant::now()).min(most).max(Duration::from_millis(1))
}

/// Calls until someone answers the phone; `None` at the deadline.
fn call(host: &str, port: u16, deadline: Instant) -> std::io::Result<Option<TcpStream>> {
    loop {
        // Names may take a while to be known in a job that has just started.
        let mut addresses = (host, port).to_socket_addrs().into_iter().flatten().peekable();
        let known = addresses.peek().is_some();
        for address in addresses {
            match TcpStream::connect_timeout(&address, left(deadline, PATIENCE)) {
                Ok(stream) if reached_itself(&stream) => {}
                Ok(stream) => return Ok(Some(stream)),
                // No fault of the other side's, which may well be there.
                Err(error) if error.raw_os_error().is_some_and(|e| NO_MORE_FILES.contains(&e)) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        if Instant::now() >= deadline {
            return match known {
                true => Ok(None),
                false => Err(std::io::Error::new(ErrorKind::NotFound, format!("no host {host}"))),
            };
        }
        std::thread::sleep(left(deadline, AGAIN));
    }
}

/// Whether nobody has answered but this call itself: who calls a port of its own host at which nobody listens yet may
/// be given that port to call from. Where something was not read the port is free once it is closed; else rank 0
/// could not listen there for a minute.
fn reached_itself(mut stream: &TcpStream) -> bool {
    let same = matches!((stream.local_addr(), stream.peer_addr()), (Ok(a), Ok(b)) if a == b);
    same && stream.write(&[0]).is_ok()
}

/// Connections of all to all.
pub(super) fn connect(meet: &Rendezvous, deadline: Instant) -> Result<Channel, Fault> {
    let listener = match meet.rank {
        0 => listen(meet, deadline),
        _ => bind(0),
    };
    let failed = |call: &'static str| move |error| transport(meet.rank, call, &error);
    let listener = listener.map_err(failed("bind"))?;
    listener.set_nonblocking(true).map_err(failed("bind"))?;
    let (job, addresses) = match meet.rank {
        0 => gather(meet, &listener, deadline)?,
        _ => join(meet, &listener, deadline)?,
    };
    mesh(meet, &listener, (job, &addresses), deadline)
}

/// At all addresses of this host: those of IPv6 and, if the system maps them there, of IPv4; or of IPv4.
fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(("::", port)).or_else(|error| match error.kind() {
        ErrorKind::AddrInUse => Err(error),
        _ => TcpListener::bind(("0.0.0.0", port)),
    })
}

/// At the port that all know. Another communicator of the same job may be about to leave it.
fn listen(meet: &Rendezvous, deadline: Instant) -> std::io::Result<TcpListener> {
    loop {
        match bind(meet.port) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(left(deadline, AGAIN));
            }
            done => return done,
        }
    }
}

/// Rank 0: hears everyone out, and then says so to everyone.
fn gather(
    meet: &Rendezvous,
    listener: &TcpListener,
    deadline: Instant,
) -> Result<(u64, Vec<(String, u16)>), Fault> {
    let mut here: Vec<Option<(TcpStream, (String, u16))>> = (0..meet.size).map(|_| None).collect();
    let mut callers = Callers::new(listener);
    let answer = loop {
        let missing: Vec<usize> = (1..meet.size).filter(|&rank| here[rank].is_none()).collect();
        if missing.is_empty() {
            let gone =
                |rank: &usize| here[*rank].as_ref().is_some_and(|(stream, _)| closed(stream));
            let gone: Vec<usize> = (1..meet.size).filter(gone).collect();
            if !gone.is_empty() {
                gone.into_iter().for_each(|rank| here[rank] = None);
                continue;
            }
            let addresses = here.iter().flatten().map(|(_, address)| address.clone()).collect();
            break Answer::Go(number(), addresses);
        }
        let (stream, hello) = match callers.next::<Hello>(deadline) {
            Ok(Some(caller)) => caller,
            Ok(None) => break Answer::Stop(Fault::Deadline { sequence: 0, waiting_on: missing }),
            Err(error) => break Answer::Stop(transport(0, "accept", &error)),
        };
        let Ok(from) = stream.peer_addr() else { continue }; // gone
        let expected = format!("one of {} of {}", meet.size, protocol());
        let found = format!("{} of {} of {}", hello.rank, hello.size, hello.protocol);
        let rank = hello.rank;
        let known = hello.size == meet.size && hello.protocol == protocol();
        let there = |(stream, _): &(TcpStream, _)| !closed(stream); // not ended, and started again
        if !known || !(1..meet.size).contains(&rank) || here[rank].as_ref().is_some_and(there) {
            let found = if known { format!("{found}, a second time") } else { found };
            let fault = Fault::Mismatch { sequence: 0, rank, expected, found };
            let _ = say(&stream, &Answer::Stop(fault.clone()), Instant::now() + PATIENCE);
            break Answer::Stop(fault);
        }
        here[rank] = Some((stream, (from.ip().to_canonical().to_string(), hello.port)));
    };
    for (stream, _) in here.iter().flatten() {
        // Who has gone meanwhile is missed when all connect.
        let _ = say(stream, &answer, Instant::now() + PATIENCE);
    }
    match answer {
        Answer::Go(job, addresses) => Ok((job, addresses)),
        Answer::Stop(fault) => Err(fault),
    }
}

/// Whether a rank that waits for an answer has gone.
fn closed(stream: &TcpStream) -> bool {
    let peek = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let waits = peek.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    !waits || stream.set_nonblocking(false).is_err()
}

/// All others: introduce themselves to rank 0, and hear from it when all have.
fn join(
    meet: &Rendezvous,
    listener: &TcpListener,
    deadline: Instant,
) -> Result<(u64, Vec<(String, u16)>), Fault> {
    let failed = |call: &'static str| move |error| transport(meet.rank, call, &error);
    let port = listener.local_addr().map_err(failed("getsockname"))?.port();
    let hello = Hello { protocol: protocol(), rank: meet.rank, size: meet.size, port };
    let silent = || Fault::Deadline { sequence: 0, waiting_on: vec![0] };
    loop {
        let stream = call(&meet.host, meet.port, deadline).map_err(failed("connect"))?;
        let stream = stream.ok_or_else(silent)?;
        // Rank 0 answers by the deadline that it has, which may have begun a little later.
        let answer = deadline + PATIENCE;
        let heard = say(&stream, &hello, answer).and_then(|()| hear(&stream, answer));
        match heard {
            Ok(Answer::Go(job, addresses)) => return Ok((job, addresses)),
            Ok(Answer::Stop(fault)) => return Err(fault),
            Err(_) if Instant::now() >= deadline => return Err(silent()),
            Err(_) => std::thread::sleep(left(deadline, AGAIN)),
        }
    }
}

/// Each calls those below it, and is called by those above.
fn mesh(
    meet: &Rendezvous,
    listener: &TcpListener,
    (job, addresses): (u64, &[(String, u16)]),
    deadline: Instant,
) -> Result<Channel, Fault> {
    let failed = |call: &'static str| move |error| transport(meet.rank, call, &error);
    let mut found: [Vec<Option<TcpStream>>; 2] =
        [(); 2].map(|()| (0..meet.size).map(|_| None).collect());
    for below in 0..meet.rank {
        let (host, port) = match below {
            0 => (meet.host.as_str(), meet.port),
            _ => addresses.get(below - 1).map_or(("", 0), |(host, port)| (host.as_str(), *port)),
        };
        // Who has called rank 0 from rank 0's own host is there.
        let inside = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let host = if inside { meet.host.as_str() } else { host };
        for (bulk, to) in found.iter_mut().enumerate() {
            let stream = call(host, port, deadline).map_err(failed("connect"))?;
            let silent = || Fault::Deadline { sequence: 0, waiting_on: vec![below] };
            let stream = stream.ok_or_else(silent)?;
            let peer = Peer { job, rank: meet.rank, bulk: bulk == 1 };
            say(&stream, &peer, Instant::now() + PATIENCE).map_err(failed("send"))?;
            to[below] = Some(stream);
        }
    }
    let mut callers = Callers::new(listener);
    loop {
        let missing = |rank: &usize| found.iter().any(|found| found[*rank].is_none());
        let missing: Vec<usize> = (meet.rank + 1..meet.size).filter(missing).collect();
        if missing.is_empty() {
            break;
        }
        let next = callers.next::<Peer>(deadline).map_err(failed("accept"))?;
        let Some((stream, peer)) = next else {
            return Err(Fault::Deadline { sequence: 0, waiting_on: missing });
        };
        if (peer.job, missing.contains(&peer.rank)) == (job, true) {
            found[usize::from(peer.bulk)][peer.rank] = Some(stream);
        }
    }
    let ready = |stream: &TcpStream| stream.set_nodelay(true).and(stream.set_nonblocking(true));
    found.iter().flatten().flatten().try_for_each(ready).map_err(failed("fcntl"))?;
    let [mail, bulk] = found;
    let mailbox = |stream| Mutex::new(Mailbox::new(stream));
    Ok(Channel { mail: mail.into_iter().map(|stream| stream.map(mailbox)).collect(), bulk })
}

/// One that no other communicator has: of the clock and of the process.
fn number() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection to itself, where the system makes such; and the port that it holds.
    fn to_itself() -> Option<(TcpStream, u16)> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Linux gives calls even ports first, each the next after the last.
        let port = free & !1;
        let call = |_| TcpStream::connect(("127.0.0.1", port)).ok();
        let stream = (0..100_000).find_map(call)?;
        let same = stream.local_addr().unwrap() == stream.peer_addr().unwrap();
        same.then_some((stream, port))
    }

    /// Or else rank 0 could not listen there for a minute.
    #[test]
    fn who_reaches_itself_leaves_the_port_to_rank_0() {
        let Some((stream, port)) = to_itself() else {
            println!("skipped: this system connects no socket with itself");
            return;
        };
        assert!(reached_itself(&stream));
        drop(stream);
        bind(port).unwrap();
        let listener = bind(0).unwrap();
        let other =
            TcpStream::connect(("127.0.0.1", listener.local_addr().unwrap().port())).unwrap();
        assert!(!reached_itself(&other));
    }
}
