//! Who calls while ranks meet. All are listened to at once: one who says nothing holds nobody up.

#![forbid(unsafe_code)]

use std::io::{ErrorKind, Read, Result};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use serde::Deserialize;

use super::meet::{AGAIN, PATIENCE, left};
use super::talk;

/// Those who have called and have not said all yet.
pub(super) struct Callers<'a> {
    listener: &'a TcpListener,
    here: Vec<Caller>,
}

struct Caller {
    stream: TcpStream,
    /// When it is hung up on.
    until: Instant,
    heard: Vec<u8>,
}

impl<'a> Callers<'a> {
    /// Of a listener that does not block.
    pub fn new(listener: &'a TcpListener) -> Self {
        Self { listener, here: Vec::new() }
    }

    /// The next who says what it should, and what; `None` at the deadline.
    pub fn next<T: for<'t> Deserialize<'t>>(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<(TcpStream, T)>> {
        loop {
            self.accept()?;
            let mut at = 0;
            while at < self.here.len() {
                let said = match self.here[at].hear() {
                    Ok(None) => {
                        at += 1;
                        continue;
                    }
                    said => said,
                };
                let stream = self.here.swap_remove(at).stream;
                // Who has gone, or speaks of something else, is no rank.
                if let Ok(Some(what)) = said {
                    stream.set_nonblocking(false)?;
                    return Ok(Some((stream, what)));
                }
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(left(deadline, AGAIN));
        }
    }

    /// All who have called by now.
    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    let (until, heard) = (Instant::now() + PATIENCE, Vec::new());
                    self.here.push(Caller { stream, until, heard });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Who called has gone again.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Caller {
    /// What it says, once it has said all of it. Nothing that comes behind it is read.
    fn hear<T: for<'t> Deserialize<'t>>(&mut self) -> Result<Option<T>> {
        loop {
            let known = self.heard.len();
            let Some(missing) = talk::missing(&self.heard)? else {
                return talk::parse(&self.heard).map(Some);
            };
            self.heard.resize(known + missing, 0);
            let read = self.stream.read(&mut self.heard[known..]);
            self.heard.truncate(known + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let silent = Instant::now() >= self.until;
                    return if silent { Err(ErrorKind::TimedOut.into()) } else { Ok(None) };
                }
                Err(error) => return Err(error),
            }
        }
    }
}
