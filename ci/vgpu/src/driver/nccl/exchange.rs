//! Doing a collective: when all of its operations have come to the fronts of their lanes.

use super::Call;
use crate::driver::Driver;
use crate::driver::lane::Operation;
use crate::driver::order::Label;
use crate::driver::work::error_of;
use crate::memory::{Fault, Footprint};

impl Driver {
    /// Does a collective whose operations are all at the front of their lanes; that of `lane` was taken.
    pub(in crate::driver) fn perform_meeting(
        &mut self,
        meeting: u64,
        lane: usize,
        operation: Operation,
    ) {
        let (id, round) =
            self.cliques.meetings.remove(&meeting).expect("opened with its first member");
        let clique = self.cliques.list.get_mut(&id).expect("with members that wait");
        let groups = clique.rounds.remove(&round).expect("opened with its first member");
        let groups: Vec<Vec<Call>> = groups.into_iter().flatten().collect();
        let lanes = self.lanes.close_meeting(meeting);
        let mut taken = Some(operation);
        let operations: Vec<Operation> = lanes
            .iter()
            .map(|&other| match other == lane {
                true => taken.take().expect("one of the members"),
                false => self.lanes.take(other).expect("it is at the front"),
            })
            .collect();
        // Copies need no peer access.
        self.memory.visible = u64::MAX;
        let moved = self.exchange(&groups);
        for (rank, (lane, operation)) in lanes.into_iter().zip(operations).enumerate() {
            let label = Label { what: "collective".into(), stream: operation.stream };
            let context = self.lanes.context(lane);
            let mut result = Ok(());
            if let Err((by, address, fault)) = &moved
                && *by == rank
            {
                self.note(&label, context, fault.kind, *address, fault.detail.clone());
                result = Err(error_of(fault.kind));
            }
            let compared = self.compare(lane, &operation, &label, touched(&groups, rank));
            self.finish(lane, result.and(compared));
        }
    }

    /// Moves the bytes of all groups. An error says whose call it was of, and where.
    fn exchange(&mut self, groups: &[Vec<Call>]) -> std::result::Result<(), (usize, u64, Fault)> {
        let ranks = groups.len();
        for to in self.order_of(ranks) {
            for from in self.order_of(ranks) {
                let sends = groups[from].iter().filter_map(|call| match *call {
                    Call::Send { from, bytes, peer } if peer == to => Some((from, bytes)),
                    _ => None,
                });
                let receives = groups[to].iter().filter_map(|call| match *call {
                    Call::Receive { to, peer, .. } if peer == from => Some(to),
                    _ => None,
                });
                let gathers = groups[from].iter().zip(&groups[to]).filter_map(|pair| match pair {
                    (Call::AllGather { from: a, bytes, .. }, Call::AllGather { to, .. }) => {
                        Some(((*a, *bytes), to + from as u64 * bytes))
                    }
                    _ => None,
                });
                let moves: Vec<_> = sends.zip(receives).chain(gathers).collect();
                for ((source, bytes), target) in moves {
                    self.clock += bytes / 16;
                    let copied = self.memory.copy(target, source, bytes);
                    copied.map_err(|fault| (to, target, fault))?;
                }
            }
        }
        let longest = groups.iter().map(Vec::len).min().unwrap_or(0);
        for index in 0..longest {
            self.reduce(groups, index)?;
        }
        Ok(())
    }

    /// Adds what ranks have, in an order that nobody can rely on.
    fn reduce(
        &mut self,
        groups: &[Vec<Call>],
        index: usize,
    ) -> std::result::Result<(), (usize, u64, Fault)> {
        let Call::AllReduce { count, kind, max, .. } = groups[0][index] else { return Ok(()) };
        let size = kind.bytes() as usize;
        let mut sum: Option<Vec<u8>> = None;
        for rank in self.order_of(groups.len()) {
            let Call::AllReduce { from, .. } = groups[rank][index] else { return Ok(()) };
            let values = self.memory.read(from, count * kind.bytes());
            let values = values.map_err(|fault| (rank, from, fault))?;
            sum = Some(match sum {
                None => values,
                Some(sum) => {
                    let pairs = sum.chunks(size).zip(values.chunks(size));
                    pairs.flat_map(|(a, b)| kind.join(a, b, max)).collect()
                }
            });
        }
        let sum = sum.unwrap_or_default();
        for (rank, group) in groups.iter().enumerate() {
            let Call::AllReduce { to, .. } = group[index] else { return Ok(()) };
            self.memory.write(to, &sum).map_err(|fault| (rank, to, fault))?;
        }
        Ok(())
    }

    /// Ranks in an order drawn from the seed.
    fn order_of(&mut self, ranks: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..ranks).collect();
        for i in (1..ranks).rev() {
            order.swap(i, self.random.below(i + 1));
        }
        order
    }
}

/// What a rank's stream reads and writes in a collective.
fn touched(groups: &[Vec<Call>], rank: usize) -> Footprint {
    let mut all = Footprint::default();
    let mut add = |address: u64, bytes: u64, write: bool| {
        let range = address..address + bytes;
        let mut one = Footprint::default();
        *if write { &mut one.writes } else { &mut one.reads } = range.into();
        all.add(&one);
    };
    for call in &groups[rank] {
        match *call {
            Call::Send { from, bytes, .. } => add(from, bytes, false),
            Call::Receive { to, bytes, .. } => add(to, bytes, true),
            Call::AllGather { from, to, bytes } => {
                add(from, bytes, false);
                add(to, bytes * groups.len() as u64, true);
            }
            Call::AllReduce { from, to, count, kind, .. } => {
                add(from, count * kind.bytes(), false);
                add(to, count * kind.bytes(), true);
            }
        }
    }
    all
}

/// What does not fit in a round, of which every rank's group is there.
pub(super) fn unfit(groups: &[Option<Vec<Call>>]) -> Option<String> {
    let groups: Vec<&Vec<Call>> = groups.iter().flatten().collect();
    let collective = |call: &Call| match *call {
        Call::AllGather { bytes, .. } => Some((bytes, None)),
        Call::AllReduce { count, kind, max, .. } => Some((count, Some((kind, max)))),
        _ => None,
    };
    let collectives =
        |rank: usize| -> Vec<_> { groups[rank].iter().filter_map(collective).collect() };
    for (a, group) in groups.iter().enumerate() {
        if collectives(a) != collectives(0) {
            return Some(format!("ranks 0 and {a} call other collectives, or of other lengths"));
        }
        for (b, other) in groups.iter().enumerate() {
            let sent = group.iter().filter_map(|call| match *call {
                Call::Send { bytes, peer, .. } if peer == b => Some(bytes),
                _ => None,
            });
            let received = other.iter().filter_map(|call| match *call {
                Call::Receive { bytes, peer, .. } if peer == a => Some(bytes),
                _ => None,
            });
            let (sent, received): (Vec<u64>, Vec<u64>) = (sent.collect(), received.collect());
            if sent != received {
                return Some(format!(
                    "rank {a} sends {sent:?} bytes to rank {b}, which expects {received:?}"
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_fits_or_says_what_does_not() {
        let send = |peer, bytes| Call::Send { from: 0, bytes, peer };
        let receive = |peer, bytes| Call::Receive { to: 0, bytes, peer };
        let round = |groups: [&[Call]; 2]| unfit(&groups.map(|group| Some(group.to_vec())));
        assert_eq!(round([&[send(1, 8)], &[receive(0, 8)]]), None);
        assert_eq!(round([&[], &[]]), None);
        let gather = |bytes| Call::AllGather { from: 0, to: 0, bytes };
        assert_eq!(round([&[gather(8)], &[gather(8)]]), None);
        for (bad, words) in [
            (
                round([&[send(1, 8)], &[receive(0, 4)]]),
                "sends [8] bytes to rank 1, which expects [4]",
            ),
            (round([&[send(1, 8)], &[]]), "expects []"),
            (round([&[], &[receive(0, 4)]]), "sends [] bytes"),
            (round([&[gather(8)], &[gather(4)]]), "other collectives"),
            (round([&[gather(8)], &[]]), "other collectives"),
        ] {
            assert!(bad.as_ref().is_some_and(|what| what.contains(words)), "{bad:?}");
        }
    }
}
