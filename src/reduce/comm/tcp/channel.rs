//! Mail over TCP: each has its length, two bytes, before it.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::processes::{self, Delivery, Failed};
use super::transfer::Transfer;

/// A rank's connections to all others; its own places are empty.
#[derive(Debug)]
pub(super) struct Channel {
    pub mail: Vec<Option<Mutex<Mailbox>>>,
    pub bulk: Vec<Option<TcpStream>>,
}

/// One connection's mail.
#[derive(Debug)]
pub(super) struct Mailbox {
    stream: TcpStream,
    /// What has come and was not delivered.
    came: VecDeque<u8>,
    /// What could not be sent yet.
    waits: VecDeque<u8>,
    /// The other side has closed it: nothing more will come.
    closed: bool,
    /// That was delivered, too.
    told: bool,
}

impl Mailbox {
    pub fn new(stream: TcpStream) -> Self {
        let (came, waits) = (VecDeque::new(), VecDeque::new());
        Self { stream, came, waits, closed: false, told: false }
    }

    fn send(&mut self) -> Result<(), Failed> {
        while !self.waits.is_empty() {
            match self.stream.write(self.waits.as_slices().0) {
                Ok(sent) => drop(self.waits.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Nobody is there to read it. That will be seen where something is read.
                Err(error) if is_gone(error.kind()) => self.waits.clear(),
                Err(error) => return Err(failed("send", &error)),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Failed> {
        let mut bytes = [0; 4096];
        while !self.closed {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.closed = true,
                Ok(len) => self.came.extend(&bytes[..len]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if is_gone(error.kind()) => self.closed = true,
                Err(error) => return Err(failed("recv", &error)),
            }
        }
        Ok(())
    }

    /// The next mail, if all of it is here; its length.
    fn take(&mut self, into: &mut [u8]) -> Result<Option<usize>, Failed> {
        let (Some(low), Some(high)) = (self.came.front(), self.came.get(1)) else {
            return Ok(None);
        };
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        if len > into.len() {
            let reason = format!("mail of {len} bytes; at most {}", into.len());
            return Err(Failed { call: "recv", reason });
        }
        if self.came.len() < 2 + len {
            return Ok(None);
        }
        self.came.drain(..2);
        into.iter_mut().zip(self.came.drain(..len)).for_each(|(to, byte)| *to = byte);
        Ok(Some(len))
    }
}

/// Whether the other side has closed a connection, or has ended.
pub(super) fn is_gone(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
    )
}

pub(super) fn failed(call: &'static str, error: &std::io::Error) -> Failed {
    Failed { call, reason: error.to_string() }
}

/// Nothing is left half done under the lock.
fn lock(mailbox: &Mutex<Mailbox>) -> MutexGuard<'_, Mailbox> {
    mailbox.lock().unwrap_or_else(PoisonError::into_inner)
}

impl processes::Channel for Channel {
    type Transfer = Transfer;
    const NAME: &'static str = "TCP";

    fn send(&self, to: usize, mail: &[u8]) -> Result<(), Failed> {
        let Some(mailbox) = &self.mail[to] else { return Ok(()) };
        let len = u16::try_from(mail.len());
        let len = len.map_err(|_| Failed { call: "send", reason: "mail above 64 KiB".into() })?;
        let mut mailbox = lock(mailbox);
        mailbox.waits.extend(len.to_le_bytes());
        mailbox.waits.extend(mail);
        mailbox.send()
    }

    fn receive<'a>(&self, into: &'a mut [u8]) -> Result<Delivery<'a>, Failed> {
        // The system is asked only when nothing is left of what it gave before: once for all that has come.
        for asks in [false, true] {
            for mailbox in self.mail.iter().flatten().filter(|_| asks) {
                let mut mailbox = lock(mailbox);
                mailbox.send()?;
                mailbox.read()?;
            }
            for (from, mailbox) in self.mail.iter().enumerate() {
                let Some(mailbox) = mailbox else { continue };
                let mut mailbox = lock(mailbox);
                if let Some(len) = mailbox.take(into)? {
                    return Ok(Delivery::Mail(from, &into[..len]));
                }
                if mailbox.closed && !std::mem::replace(&mut mailbox.told, true) {
                    return Ok(Delivery::Gone(from));
                }
            }
        }
        Ok(Delivery::Nothing)
    }

    /// Connections end with the process.
    fn abandon(&self) {}
}
