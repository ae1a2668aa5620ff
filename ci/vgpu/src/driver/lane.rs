//! Queues of work. Every stream has a lane, and so has every branch of a graph.
//!
//! An operation waits for the one before it in its lane and for the points that the lane was told to
//! wait for. Points are of operations that exist already, so these can never wait in a circle.
//! Operations that [meet](Work::Meet) wait for each other, for those too that do not exist yet: ranks
//! that meet in different orders wait for ever, as they would on devices.

use std::collections::{BTreeMap, VecDeque};

use super::order::Clock;
use super::work::Work;

/// An operation of a lane, by its number, counted from 1; all before it are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The lane.
    pub lane: usize,
    /// Operations of the lane up to it.
    pub count: u64,
}

/// What an event remembers of a lane: what must be done, and what is known then.
#[derive(Debug, Clone, Default)]
pub struct Mark {
    /// What must be done.
    pub points: Vec<Point>,
    /// What is known then.
    pub clock: Clock,
}

/// An operation that waits in a lane.
#[derive(Debug)]
pub struct Operation {
    /// What is to be done.
    pub work: Work,
    /// What must be done before, beside what is before it in the lane.
    pub after: Vec<Point>,
    /// What it knows; its own lane's segment is its own.
    pub clock: Clock,
    /// The stream that it was given to, for what is said of it.
    pub stream: u64,
    /// The thread that gave it.
    pub thread: u64,
}

/// One queue.
#[derive(Debug, Default)]
pub struct Lane {
    /// The context that it belongs to.
    pub context: u64,
    queue: VecDeque<Operation>,
    waits: Vec<Point>,
    clock: Clock,
    segment: u32,
    /// Whether the segment has operations.
    used: bool,
    issued: u64,
    done: u64,
    /// Whether the front operation is under way, outside the driver.
    running: bool,
    closed: bool,
}

/// All queues, and what the host knows of them.
#[derive(Debug, Default)]
pub struct Lanes {
    list: Vec<Lane>,
    /// What the host has waited for.
    pub host: Clock,
    /// Of each meeting, the operation of each of its members, as far as they were given.
    meetings: BTreeMap<u64, Vec<Option<Point>>>,
}

impl Lanes {
    /// A lane without operations.
    pub fn open(&mut self, context: u64) -> usize {
        // What is left of an old one must not be taken for the new one's.
        let host = &self.host;
        let free = self.list.iter().enumerate().position(|(i, lane)| {
            lane.closed && lane.queue.is_empty() && !lane.running && host.get(i) >= lane.last()
        });
        let lane = free.unwrap_or_else(|| {
            self.list.push(Lane::default());
            self.list.len() - 1
        });
        let Lane { issued, done, segment, .. } = self.list[lane];
        let segment = segment + 1;
        self.list[lane] =
            Lane { context, segment, issued, done, clock: self.host.clone(), ..Lane::default() };
        lane
    }

    /// The lane gets no more operations; those that it has are done.
    pub fn close(&mut self, lane: usize) {
        self.list[lane].closed = true;
    }

    /// The context of a lane.
    pub fn context(&self, lane: usize) -> u64 {
        self.list[lane].context
    }

    /// Adds an operation.
    pub fn push(&mut self, lane: usize, work: Work, stream: u64, thread: u64) {
        let one = &mut self.list[lane];
        one.clock.join(&self.host);
        let mut clock = one.clock.clone();
        clock.set(lane, one.segment);
        one.used = true;
        one.issued += 1;
        let after = std::mem::take(&mut one.waits);
        one.queue.push_back(Operation { work, after, clock, stream, thread });
    }

    /// All that the lane has been given so far.
    pub fn mark(&mut self, lane: usize) -> Mark {
        let one = &mut self.list[lane];
        let mut points = one.waits.clone();
        points.push(Point { lane, count: one.issued });
        one.clock.join(&self.host);
        let mut clock = one.clock.clone();
        clock.set(lane, one.last());
        if one.used {
            one.segment += 1;
            one.used = false;
        }
        Mark { points, clock }
    }

    /// What comes next in the lane waits for `mark`.
    pub fn wait(&mut self, lane: usize, mark: &Mark) {
        let open = mark.points.iter().filter(|p| p.lane != lane && !self.reached(**p));
        let open: Vec<_> = open.copied().collect();
        let one = &mut self.list[lane];
        one.waits.extend(open);
        one.clock.join(&mark.clock);
    }

    /// Whether a point is done.
    pub fn reached(&self, point: Point) -> bool {
        self.list[point.lane].done >= point.count
    }

    /// Lanes whose front operation can run.
    pub fn ready(&self) -> Vec<usize> {
        (0..self.list.len()).filter(|lane| self.is_ready(*lane)).collect()
    }

    fn is_ready(&self, lane: usize) -> bool {
        let front = || self.list[lane].queue.front();
        self.is_free(lane)
            && match front().map(|operation| &operation.work) {
                Some(Work::Meet { meeting }) => self.gathered(*meeting),
                _ => true,
            }
    }

    /// Whether nothing that exists is to be done before the front operation.
    fn is_free(&self, lane: usize) -> bool {
        let one = &self.list[lane];
        let free = |op: &Operation| op.after.iter().all(|point| self.reached(*point));
        !one.running && one.queue.front().is_some_and(free)
    }

    /// Whether the operation is at its lane's front and free.
    fn has_come(&self, point: Point) -> bool {
        self.list[point.lane].done + 1 == point.count && self.is_free(point.lane)
    }

    fn gathered(&self, meeting: u64) -> bool {
        let all = self.meetings.get(&meeting);
        all.is_some_and(|all| all.iter().all(|one| one.is_some_and(|point| self.has_come(point))))
    }

    /// Opens a meeting of `members`.
    pub fn open_meeting(&mut self, meeting: u64, members: usize) {
        self.meetings.insert(meeting, vec![None; members]);
    }

    /// Adds the operation with which `member` takes part.
    pub fn meet(&mut self, lane: usize, meeting: u64, member: usize, stream: u64, thread: u64) {
        self.push(lane, Work::Meet { meeting }, stream, thread);
        let point = Point { lane, count: self.list[lane].issued };
        if let Some(members) = self.meetings.get_mut(&meeting) {
            members[member] = Some(point);
        }
    }

    /// The member takes no part: its operation does nothing, and the others wait for ever.
    pub fn leave(&mut self, meeting: u64, member: usize) {
        let Some(members) = self.meetings.get_mut(&meeting) else { return };
        let Some(point) = members[member].take() else { return };
        for operation in &mut self.list[point.lane].queue {
            if matches!(operation.work, Work::Meet { meeting: other } if other == meeting) {
                operation.work = Work::Nothing;
            }
        }
    }

    /// Ends a meeting; the lanes of its members, of which all operations but one's were at the front.
    pub fn close_meeting(&mut self, meeting: u64) -> Vec<usize> {
        let members = self.meetings.remove(&meeting).unwrap_or_default();
        members.into_iter().flatten().map(|point| point.lane).collect()
    }

    /// Whether some operation at the front waits for others to meet.
    pub fn any_meeting(&self) -> bool {
        let meets = |op: &Operation| matches!(op.work, Work::Meet { .. });
        self.list.iter().any(|lane| lane.queue.front().is_some_and(meets))
    }

    /// A lane whose front operation can run and must, before `point` is reached.
    pub fn needed(&self, mut point: Point) -> Option<usize> {
        // Meetings can wait in a circle: then nothing can run.
        for _ in 0..=2 * self.list.len() {
            if self.reached(point) {
                return None;
            }
            let lane = point.lane;
            if self.is_ready(lane) {
                return Some(lane);
            }
            let front = self.list[lane].queue.front()?;
            point = match (front.after.iter().find(|p| !self.reached(**p)), &front.work) {
                (Some(before), _) => *before,
                (None, Work::Meet { meeting }) => {
                    let members: Option<Vec<Point>> =
                        self.meetings.get(meeting)?.iter().copied().collect();
                    members?.into_iter().find(|point| !self.has_come(*point))?
                }
                (None, _) => return None,
            };
        }
        None
    }

    /// Whether something is under way outside the driver.
    pub fn any_running(&self) -> bool {
        self.list.iter().any(|lane| lane.running)
    }

    /// Takes the front operation, which is under way until [`finish`](Self::finish).
    pub fn take(&mut self, lane: usize) -> Option<Operation> {
        let operation = self.list[lane].queue.pop_front();
        self.list[lane].running = operation.is_some();
        operation
    }

    /// The operation that was taken is done.
    pub fn finish(&mut self, lane: usize) {
        self.list[lane].running = false;
        self.list[lane].done += 1;
    }

    /// Throws away all operations of a context's lanes, as after an error.
    pub fn abandon(&mut self, context: u64) {
        for lane in self.list.iter_mut().filter(|lane| lane.context == context) {
            lane.queue.clear();
            lane.waits.clear();
            lane.done = lane.issued - u64::from(lane.running);
        }
    }

    /// All lanes of a context.
    pub fn of(&self, context: u64) -> Vec<usize> {
        (0..self.list.len()).filter(|i| self.list[*i].context == context).collect()
    }

    /// Operations that wait, all lanes together.
    pub fn pending(&self) -> usize {
        self.list.iter().map(|lane| lane.queue.len()).sum()
    }

    /// Whether everything that may come, from any lane or a new one, knows a segment.
    pub fn all_know(&self, lane: usize, segment: u32) -> bool {
        let waiting = |other: &Lane| other.queue.front().map(|op| op.clock.get(lane));
        self.host.get(lane) >= segment
            && self
                .list
                .iter()
                .enumerate()
                .all(|(i, other)| i == lane || waiting(other).is_none_or(|known| known >= segment))
    }
}

impl Lane {
    /// The last segment that has operations.
    fn last(&self) -> u32 {
        if self.used { self.segment } else { self.segment.saturating_sub(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(lanes: &mut Lanes, lane: usize) {
        assert!(lanes.take(lane).is_some());
        lanes.finish(lane);
    }

    #[test]
    fn a_lane_waits_for_what_it_was_told_and_for_what_it_had_before() {
        let mut lanes = Lanes::default();
        let (a, b) = (lanes.open(1), lanes.open(1));
        lanes.push(a, Work::Nothing, 0, 0);
        let mark = lanes.mark(a);
        lanes.push(a, Work::Nothing, 0, 0);
        lanes.wait(b, &mark);
        // What is waited for and not yet followed by work is part of the lane's own mark.
        let end = lanes.mark(b);
        lanes.push(b, Work::Nothing, 0, 0);
        assert_eq!(lanes.ready(), [a]);
        assert_eq!(end.points.iter().find_map(|p| lanes.needed(*p)), Some(a));
        finish(&mut lanes, a);
        assert_eq!(lanes.ready(), [a, b]);
        assert!(end.points.iter().all(|point| lanes.reached(*point)));
    }

    #[test]
    fn knowledge_goes_with_marks_and_ends_with_them() {
        let mut lanes = Lanes::default();
        let (a, b) = (lanes.open(1), lanes.open(1));
        lanes.push(a, Work::Nothing, 0, 0);
        let first = lanes.take(a).unwrap().clock.get(a);
        lanes.finish(a);
        let mark = lanes.mark(a);
        lanes.push(a, Work::Nothing, 0, 0);
        let second = lanes.take(a).unwrap().clock.get(a);
        lanes.finish(a);
        lanes.wait(b, &mark);
        lanes.push(b, Work::Nothing, 0, 0);
        let known = lanes.take(b).unwrap().clock.get(a);
        lanes.finish(b);
        assert!(first <= known && known < second, "{first} {known} {second}");
        // The host knows nothing until it waits.
        assert!(!lanes.all_know(a, first));
        lanes.host.join(&mark.clock);
        assert!(lanes.all_know(a, first) && !lanes.all_know(a, second));
    }

    #[test]
    fn a_lane_is_not_used_again_while_its_work_may_be_unordered() {
        let mut lanes = Lanes::default();
        let a = lanes.open(1);
        lanes.push(a, Work::Nothing, 0, 0);
        finish(&mut lanes, a);
        let mark = lanes.mark(a);
        lanes.close(a);
        assert_ne!(lanes.open(1), a);
        lanes.host.join(&mark.clock);
        assert_eq!(lanes.open(1), a);
    }
}
