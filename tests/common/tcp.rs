//! Ranks over TCP, as the suites write them.

use halfstep::Error;
use halfstep::reduce::{Given, Rendezvous, TcpComm};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A port that nobody listens at.
pub fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn place(rank: usize, size: usize, port: u16) -> Rendezvous {
    let given = Given { rank: Some(rank), size: Some(size), port: Some(port), ..Given::default() };
    Rendezvous::find(&given, &|_| None).unwrap()
}

pub fn connect(rank: usize, size: usize, port: u16, within: Duration) -> Result<TcpComm, Error> {
    TcpComm::connect(&place(rank, size, port), Instant::now() + within)
}
