//! What of a wave's memory operations can be on its way at each instruction, on any path.
//!
//! The same counters as the executor's, of the text alone: for each register the fewest operations
//! that were issued after the one that will write it, for memory the most that are not known to be
//! done. Paths that contradict themselves are none: a comparison of a register that has not changed comes
//! out as it did before. Two programs that differ in their waits only do the same if the one with weaker waits has
//! nothing on its way, where it counts, that the other has not: registers that are used, LDS and global
//! memory at barriers, and at what publishes to other blocks.

use std::collections::{BTreeMap, BTreeSet};

use super::decode::Operand;
use super::exec::{Action, Move, Wait};
use super::isa::Format;
use super::path::{Asked, Facts, comparison};
use super::program::{Program, Step};

/// Vector registers, then scalar ones.
const VECTORS: usize = 512;
const SLOTS: usize = VECTORS + 128;
/// Not on its way.
const NONE: u8 = u8::MAX;
/// Numbers of operations stop here: more than any wait counts.
const MOST: u8 = 100;

/// A need that an instruction has, and how much is on its way in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// The n-th of its registers.
    Register(usize),
    /// LDS and scalar loads.
    Lds,
    /// Stores and atomics of global memory.
    Stores,
    /// Its loads.
    Loads,
}

/// By instruction and need, the most operations that can be on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outstanding {
    most: BTreeMap<(usize, Need), u8>,
    /// Addresses of instructions that are on some path.
    reached: BTreeSet<u64>,
}

impl Outstanding {
    /// Whether nothing is on its way anywhere in this program that is not in the other, too.
    pub fn within(&self, other: &Self) -> bool {
        self.beyond(other).next().is_none()
    }

    /// Instructions, by their number, that need something which is on its way here and not in the other program.
    pub fn beyond<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> + 'a {
        let more =
            |(place, n): &(&(usize, Need), &u8)| other.most.get(place).is_none_or(|m| *n > m);
        self.most.iter().filter(more).map(|((pc, _), _)| *pc)
    }

    /// Whether an instruction is on any path that was followed. One that was executed has to be.
    pub fn reaches(&self, address: u64) -> bool {
        self.reached.contains(&address)
    }
}

/// One counter.
#[derive(Clone, PartialEq)]
struct Counter {
    /// By register, operations in order after the one that writes it.
    ordered: [u8; SLOTS],
    /// By register, whether one out of order writes it.
    unordered: [bool; SLOTS],
    /// How far back the oldest operation is, of stores and of others; 0 if there is none.
    stores: u8,
    loads: u8,
}

impl Counter {
    const EMPTY: Self =
        Self { ordered: [NONE; SLOTS], unordered: [false; SLOTS], stores: 0, loads: 0 };

    fn push(&mut self, registers: std::ops::Range<usize>, in_order: bool, stores: bool) {
        let older = |n: u8| if n == 0 { 0 } else { (n + 1).min(MOST) };
        (self.stores, self.loads) = (older(self.stores), older(self.loads));
        let newest = if stores { &mut self.stores } else { &mut self.loads };
        *newest = (*newest).max(1);
        if in_order {
            self.ordered.iter_mut().for_each(|age| *age += u8::from(*age < MOST));
            self.ordered[registers].fill(0);
        } else {
            self.unordered[registers].fill(true);
        }
    }

    /// At most `left` are on their way.
    fn wait(&mut self, left: u8, all_in_order: bool) {
        if left == 0 {
            *self = Self::EMPTY;
            return;
        }
        self.ordered.iter_mut().filter(|age| **age >= left).for_each(|age| *age = NONE);
        if all_in_order {
            (self.stores, self.loads) = (self.stores.min(left), self.loads.min(left));
        }
    }

    fn join(&mut self, other: &Self) {
        self.ordered.iter_mut().zip(&other.ordered).for_each(|(a, b)| *a = (*a).min(*b));
        self.unordered.iter_mut().zip(&other.unordered).for_each(|(a, b)| *a |= b);
        (self.stores, self.loads) = (self.stores.max(other.stores), self.loads.max(other.loads));
    }

    fn covers(&self, mut registers: std::ops::Range<usize>) -> bool {
        registers.any(|r| self.ordered[r] != NONE || self.unordered[r])
    }
}

#[derive(Clone, PartialEq)]
struct State {
    vm: Counter,
    lgkm: Counter,
}

/// States of an instruction; more are not told apart.
const PATHS: usize = 64;

impl Program {
    /// What can be on its way, on every path; none where code jumps to addresses in registers.
    pub fn outstanding(&self) -> Option<Outstanding> {
        if self.code.iter().any(|step| matches!(step.action, Action::Jump)) {
            return None;
        }
        let order = InOrder {
            vm: !self.code.iter().any(flat),
            lgkm: !self.code.iter().any(|s| flat(s) || matches!(s.action, Action::ScalarMemory)),
        };
        let empty = State { vm: Counter::EMPTY, lgkm: Counter::EMPTY };
        let asked = Asked::by(self.code.iter().filter_map(comparison));
        let mut leaders = Leaders::default();
        for step in &self.code {
            if let Action::Branch(_) = step.action {
                leaders.states.entry(step.target as usize).or_default();
            }
        }
        let facts = Facts::start();
        leaders.arrive(self.entry as usize, facts, &empty);
        let (mut most, mut reached) = (BTreeMap::new(), BTreeSet::new());
        while let Some((mut pc, mut facts)) = leaders.work.pop() {
            let Some(mut state) = leaders.states[&pc].get(&facts).cloned() else { continue };
            // To the end of a straight piece: what comes after is joined there.
            loop {
                let step = self.code.get(pc)?;
                reached.insert(step.instruction.address);
                self.look(step, pc, &state, &mut most);
                self.effect(step, order, &mut state);
                facts.after(step);
                match step.action {
                    Action::End | Action::Trap => break,
                    Action::Branch(condition) => {
                        for taken in [true, false] {
                            let mut facts = facts.clone();
                            if !facts.goes(condition, taken, &asked) {
                                continue;
                            }
                            let to = if taken { step.target as usize } else { pc + 1 };
                            leaders.arrive(to, facts, &state);
                        }
                        break;
                    }
                    _ => pc += 1,
                }
                if leaders.states.contains_key(&pc) {
                    leaders.arrive(pc, facts, &state);
                    break;
                }
            }
        }
        Some(Outstanding { most, reached })
    }

    fn slots(&self, operand: Operand, words: u8) -> std::ops::Range<usize> {
        let first = match operand {
            Operand::Vector(n) if n >= 256 => {
                (self.descriptor.accumulation_offset() + n - 256) as usize
            }
            Operand::Vector(n) => n as usize,
            Operand::Scalar(n) => VECTORS + n as usize,
            _ => return 0..0,
        };
        let end = if first < VECTORS { VECTORS } else { SLOTS };
        first..(first + words as usize).min(end)
    }

    /// Notes what is on its way where an instruction needs it.
    fn look(&self, step: &Step, pc: usize, state: &State, found: &mut BTreeMap<(usize, Need), u8>) {
        let mut note = |need: Need, most: u8| {
            if most > 0 {
                let all = found.entry((pc, need)).or_default();
                *all = most.max(*all);
            }
        };
        for (n, used) in step.uses.iter().enumerate() {
            let slots = self.slots(used.operand, used.words);
            let vm = !used.vm_in_order && state.vm.covers(slots.clone());
            note(Need::Register(n), (vm || state.lgkm.covers(slots)).into());
        }
        let meets = matches!(step.action, Action::Barrier | Action::Fence);
        if meets || publishes(step) {
            note(Need::Lds, state.lgkm.stores.max(state.lgkm.loads));
            note(Need::Stores, state.vm.stores);
            note(Need::Loads, state.vm.loads);
        }
    }

    fn effect(&self, step: &Step, order: InOrder, state: &mut State) {
        let i = &step.instruction;
        let registers = self.slots(i.dst, i.dst_type.words());
        match step.action {
            Action::Wait(Wait { vm, lgkm, .. }) => {
                state.vm.wait(vm, order.vm);
                state.lgkm.wait(lgkm, order.lgkm);
            }
            Action::Memory(what) => {
                let stores = !matches!(what, Move::Load { .. });
                state.vm.push(registers.clone(), !flat(step), stores);
                if flat(step) {
                    state.lgkm.push(registers, false, stores);
                }
            }
            Action::Lds(Move::Fence) => {}
            Action::Lds(what) => {
                state.lgkm.push(registers, true, !matches!(what, Move::Load { .. }));
            }
            Action::ScalarMemory => state.lgkm.push(registers, false, false),
            _ => {}
        }
    }
}

/// Whether all operations of a counter are done in their order.
#[derive(Clone, Copy)]
struct InOrder {
    vm: bool,
    lgkm: bool,
}

/// Whether an access may go to LDS as well.
fn flat(step: &Step) -> bool {
    let i = &step.instruction;
    matches!(step.action, Action::Memory(_)) && i.format == Format::Flat && i.access.segment == 0
}

/// Whether other blocks may learn by it what the wave has done before.
fn publishes(step: &Step) -> bool {
    matches!(step.action, Action::Memory(Move::Atomic { .. }))
}

/// Where pieces of code begin, with what is known and on its way there, and what is still to be looked at.
#[derive(Default)]
struct Leaders {
    states: BTreeMap<usize, BTreeMap<Facts, State>>,
    work: Vec<(usize, Facts)>,
}

impl Leaders {
    fn arrive(&mut self, to: usize, mut facts: Facts, state: &State) {
        let states = self.states.entry(to).or_default();
        if !states.contains_key(&facts) && states.len() >= PATHS {
            facts = Facts::default();
        }
        let Some(known) = states.get_mut(&facts) else {
            states.insert(facts.clone(), state.clone());
            return self.work.push((to, facts));
        };
        let old = known.clone();
        known.vm.join(&state.vm);
        known.lgkm.join(&state.lgkm);
        if *known != old {
            self.work.push((to, facts));
        }
    }
}
