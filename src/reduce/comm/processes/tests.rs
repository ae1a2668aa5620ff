//! Who is named where a library fails, on a library that does.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::mail::{Call, Kind, Mail};
use super::{Channel, Delivery, Failed, Memory, Piece, Processes, Started, Transfer};
use crate::reduce::comm::{Collective, Communicator, Fault};
use crate::{Buffer, Device};

type Mailbox = Mutex<VecDeque<(usize, Vec<u8>)>>;

/// Mail between threads; its transfers never end.
#[derive(Debug)]
struct Post {
    rank: usize,
    mailboxes: Arc<Vec<Mailbox>>,
}

impl Channel for Post {
    type Transfer = Endless;
    const NAME: &'static str = "post";

    fn send(&self, to: usize, mail: &[u8]) -> Result<(), Failed> {
        self.mailboxes[to].lock().unwrap().push_back((self.rank, mail.to_vec()));
        Ok(())
    }

    fn receive<'a>(&self, into: &'a mut [u8]) -> Result<Delivery<'a>, Failed> {
        let mail = self.mailboxes[self.rank].lock().unwrap().pop_front();
        let Some((from, mail)) = mail else { return Ok(Delivery::Nothing) };
        into[..mail.len()].copy_from_slice(&mail);
        Ok(Delivery::Mail(from, &into[..mail.len()]))
    }

    fn abandon(&self) {}
}

/// Fails on rank 0.
struct Endless {
    fails: bool,
    memory: Vec<Memory>,
}

impl Transfer for Endless {
    type Channel = Post;

    fn new(channel: &Arc<Post>, memory: Vec<Memory>, _: usize) -> Result<Self, Failed> {
        Ok(Self { fails: channel.rank == 0, memory })
    }

    fn start(&mut self, _: &[Piece], _: &[Piece]) -> Result<Started, Failed> {
        Ok(Started { receives: 0..0, sends: 0..0 })
    }

    fn buffer(&self, memory: usize) -> &Buffer<u8> {
        self.memory[memory].buffer()
    }

    fn advance(&mut self) -> Result<bool, Failed> {
        let failed = Failed { call: "advance", reason: "x".repeat(500) };
        if self.fails { Err(failed) } else { Ok(false) }
    }

    fn lost(&self) -> Option<usize> {
        None
    }

    fn ended(&self, _: Range<usize>) -> bool {
        false
    }

    fn waiting_on(&self, _: Range<usize>) -> Vec<usize> {
        Vec::new()
    }

    fn all(&self) -> Range<usize> {
        0..1
    }

    fn own(self) -> Option<Vec<Buffer<u8>>> {
        None
    }
}

/// The faults of ranks that make a call, beside one that announces it and is silent from then on, if there is one.
fn faults(ranks: usize, silent: Option<usize>) -> Vec<Fault> {
    let mailboxes: Arc<Vec<Mailbox>> = Arc::new((0..ranks).map(|_| Mailbox::default()).collect());
    let post = |rank| Post { rank, mailboxes: mailboxes.clone() };
    if let Some(silent) = silent {
        let call = Call { kind: Kind::Blocks(Collective::AllGather), bytes: 8 };
        let others = (0..ranks).filter(|&rank| rank != silent);
        others.for_each(|rank| post(silent).send(rank, &Mail::Call(call).encode()).unwrap());
    }
    let exchange = |rank| {
        let (device, end) = (Device::cpu(), Instant::now() + Duration::from_secs(60));
        let stream = device.stream().unwrap();
        let send = Arc::new(device.upload(&[0u8; 8]).unwrap());
        let mut comm = Processes::new(post(rank), rank, ranks);
        comm.exchange(Collective::AllGather, &send, &stream, end).unwrap_err()
    };
    std::thread::scope(|scope| {
        let callers = (0..ranks).filter(|&rank| Some(rank) != silent);
        let threads: Vec<_> = callers.map(|rank| scope.spawn(move || exchange(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn who_does_not_answer_after_a_failure_is_named() {
    for fault in faults(4, Some(2)) {
        let Fault::Transport { rank: 0, call, reason } = fault else { panic!("{fault}") };
        assert_eq!(call, "advance");
        assert!(reason.starts_with("ranks [2] do not answer; xxx"), "{reason}");
    }
    for fault in faults(3, None) {
        let Fault::Transport { rank: 0, reason, .. } = fault else { panic!("{fault}") };
        assert!(reason.starts_with("xxx"), "{reason}");
    }
}
