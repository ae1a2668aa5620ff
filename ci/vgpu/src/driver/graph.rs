//! Graphs: captured work that is done again and again. Branches of a graph run in any order that its
//! edges allow, as streams do.

use std::sync::Arc;

use super::Driver;
use super::error::{Error, Result};
use super::lane::Mark;
use super::work::Work;

/// An operation of a graph.
#[derive(Debug, Clone)]
pub struct Node {
    /// What is done.
    pub work: Work,
    /// The nodes before it, all with lower numbers.
    pub after: Vec<usize>,
    /// The thread that gave it.
    pub thread: u64,
}

/// A graph.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Its operations.
    pub nodes: Arc<[Node]>,
}

/// A graph that can be launched.
#[derive(Debug)]
pub struct Exec {
    nodes: Arc<[Node]>,
    /// The branch of each node: each is a chain.
    branch: Vec<usize>,
    /// A lane for each branch but the first, which runs in the stream's own.
    lanes: Vec<usize>,
    /// What the next launch waits for: two launches of one graph are never under way at once.
    last: Mark,
}

impl Driver {
    /// Makes a graph ready.
    pub fn instantiate(&mut self, graph: u64) -> Result<u64> {
        let nodes = self.graphs.get(graph)?.nodes.clone();
        // A node goes on with the branch of one before it that nobody else has gone on with.
        let (mut branch, mut ends): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        for (i, node) in nodes.iter().enumerate() {
            let free = node.after.iter().map(|before| branch[*before]);
            let free = free.zip(&node.after).find(|(b, before)| ends[*b] == **before);
            match free {
                Some((b, _)) => {
                    ends[b] = i;
                    branch.push(b);
                }
                None => {
                    branch.push(ends.len());
                    ends.push(i);
                }
            }
        }
        Ok(self.execs.add(Exec { nodes, branch, lanes: Vec::new(), last: Mark::default() }))
    }

    /// Gives a stream the whole graph.
    pub fn launch_graph(&mut self, exec: u64, stream: u64) -> Result {
        if self.streams.get(stream)?.capture.is_some() {
            self.spoil(stream)?;
            self.journal.complain("graphs within graphs are not provided".into(), None);
            return Err(Error::NotSupported);
        }
        self.order_default(stream)?;
        let (context, main) = {
            let one = self.streams.get(stream)?;
            (one.context, one.lane)
        };
        let branches = self.execs.get(exec)?.branch.iter().max().map_or(0, |b| b + 1);
        while self.execs.get(exec)?.lanes.len() + 1 < branches {
            let lane = self.lanes.open(context);
            self.execs.get_mut(exec)?.lanes.push(lane);
        }
        let Exec { nodes, branch, lanes, last } = self.execs.get(exec)?;
        let (nodes, branch, last) = (nodes.clone(), branch.clone(), last.clone());
        let lanes: Vec<usize> = [main].into_iter().chain(lanes.iter().copied()).collect();
        self.lanes.wait(main, &last);
        let start = self.lanes.mark(main);
        lanes[1..].iter().for_each(|lane| self.lanes.wait(*lane, &start));
        // Where another branch goes on from.
        let mut forks = vec![false; nodes.len()];
        for (i, node) in nodes.iter().enumerate() {
            let other = |before: &&usize| branch[**before] != branch[i];
            node.after.iter().filter(other).for_each(|before| forks[*before] = true);
        }
        let mut marks = vec![Mark::default(); nodes.len()];
        for (i, node) in nodes.iter().enumerate() {
            let lane = lanes[branch[i]];
            node.after.iter().for_each(|before| self.lanes.wait(lane, &marks[*before]));
            self.lanes.push(lane, node.work.clone(), stream, node.thread);
            if forks[i] {
                marks[i] = self.lanes.mark(lane);
            }
        }
        for lane in &lanes[1..] {
            let end = self.lanes.mark(*lane);
            self.lanes.wait(main, &end);
        }
        self.lanes.push(main, Work::Nothing, stream, super::context::thread());
        let end = self.lanes.mark(main);
        self.execs.get_mut(exec)?.last = end;
        Ok(())
    }

    /// Ends a ready graph. What was launched of it is done nevertheless.
    pub fn destroy_exec(&mut self, exec: u64) -> Result {
        let exec = self.execs.remove(exec)?;
        exec.lanes.iter().for_each(|lane| self.lanes.close(*lane));
        Ok(())
    }

    /// Another graph of the same shape takes the place of the one that was made ready.
    pub fn update_exec(&mut self, exec: u64, graph: u64) -> Result<bool> {
        let new = self.graphs.get(graph)?.nodes.clone();
        let exec = self.execs.get_mut(exec)?;
        let same = |(a, b): (&Node, &Node)| {
            a.after == b.after && std::mem::discriminant(&a.work) == std::mem::discriminant(&b.work)
        };
        if exec.nodes.len() != new.len() || !exec.nodes.iter().zip(new.iter()).all(same) {
            return Ok(false);
        }
        exec.nodes = new;
        Ok(true)
    }
}
