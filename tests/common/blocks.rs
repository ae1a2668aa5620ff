//! Exchanges of bytes between ranks whose memory is the host's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cpu;
use halfstep::reduce::{Collective, Communicator, Fault, Part, Parts};

/// Exchanges these bytes.
pub fn exchange(
    comm: &mut impl Communicator,
    how: Collective,
    bytes: &[u8],
    limit: Duration,
) -> Result<Parts, Fault> {
    let device = cpu(1);
    let stream = device.stream().unwrap();
    let send = Arc::new(device.upload(bytes).unwrap());
    comm.exchange(how, &send, &stream, Instant::now() + limit)
}

/// What came from each rank.
pub fn bytes(parts: &Parts) -> Vec<Vec<u8>> {
    let stream = cpu(1).stream().unwrap();
    let read = |part: &Part| {
        let mut bytes = vec![0; part.len];
        part.buffer.read(&stream, part.start, &mut bytes).unwrap();
        bytes
    };
    parts.parts.iter().map(read).collect()
}
