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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A mailbox, and the other side's socket.
    fn pair() -> (Mailbox, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        other.set_nodelay(true).unwrap();
        (Mailbox::new(stream), other)
    }

    /// Reads until so many bytes have come.
    fn read(mailbox: &mut Mailbox, bytes: usize) {
        while mailbox.came.len() < bytes && !mailbox.closed {
            mailbox.read().unwrap();
        }
    }

    #[test]
    fn mail_comes_whole_or_not_at_all() {
        let (mut mailbox, mut other) = pair();
        let mut room = [0; 8];
        for (at, byte) in [3, 0, b'a', b'b', b'c'].into_iter().enumerate() {
            assert!(mailbox.take(&mut room).unwrap().is_none());
            other.write_all(&[byte]).unwrap();
            read(&mut mailbox, at + 1);
        }
        other.write_all(&[0, 0, 1, 0]).unwrap();
        read(&mut mailbox, 9);
        assert_eq!(mailbox.take(&mut room).unwrap(), Some(3));
        assert_eq!(&room[..3], b"abc");
        assert_eq!(mailbox.take(&mut room).unwrap(), Some(0));
        assert_eq!(mailbox.take(&mut room).unwrap(), None, "and the start of another");
        drop(other);
        read(&mut mailbox, 99);
        assert!(mailbox.closed);
        assert!(mailbox.take(&mut room).unwrap().is_none());
    }

    #[test]
    fn mail_that_is_too_long_is_an_error() {
        let (mut mailbox, mut other) = pair();
        other.write_all(&[9, 0, 1]).unwrap();
        read(&mut mailbox, 3);
        let failed = mailbox.take(&mut [0; 8]).unwrap_err();
        assert_eq!(failed.reason, "mail of 9 bytes; at most 8");
    }

    /// What the system has no room for waits, and is sent later, in order.
    #[test]
    fn mail_that_cannot_be_sent_waits() {
        let (mut mailbox, mut other) = pair();
        let all: Vec<u8> = (0..20_000_000u32).map(|i| (i % 251) as u8).collect();
        mailbox.waits.extend(&all);
        mailbox.send().unwrap();
        assert!(!mailbox.waits.is_empty(), "more than any socket holds");
        let (mut came, mut bytes) = (Vec::<u8>::new(), vec![0; 1 << 20]);
        while came.len() < all.len() {
            let len = other.read(&mut bytes).unwrap();
            came.extend(&bytes[..len]);
            mailbox.send().unwrap();
        }
        assert!(came == all);
    }
}
