//! What drivers are asked about events. ROCm looks at the stream that an event was recorded on, whatever has become of it:
//! there, one that has been destroyed is memory of others, and one that is being captured is spoilt. A program of its own,
//! whose trace is its own.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use std::collections::HashMap;

use common::devices;
use common::vgpu::Door;

/// The calls of a trace: names without the vendor's prefix, and their handles.
fn calls(trace: &[String]) -> Vec<(String, HashMap<String, u64>)> {
    let call = |line: &String| {
        let (name, rest) = line.split("] ").nth(1)?.split_once('(')?;
        let name = name.trim_start_matches("cu").trim_start_matches("hip");
        let arguments = rest.split(')').next()?.split(", ");
        let handles = arguments.filter_map(|argument| {
            let (name, value) = argument.split_once('=')?;
            Some((name.to_string(), value.parse().ok()?))
        });
        Some((name.to_string(), handles.collect()))
    };
    trace.iter().filter_map(call).collect()
}

/// Positions of questions about events, with the streams that these were recorded on.
fn questions(calls: &[(String, HashMap<String, u64>)]) -> Vec<(usize, u64)> {
    let (mut recorded, mut found) = (HashMap::new(), Vec::new());
    for (at, (name, handles)) in calls.iter().enumerate() {
        match name.as_str() {
            "EventRecord" => drop(recorded.insert(handles["event"], handles["stream"])),
            "EventQuery" | "EventSynchronize" | "StreamWaitEvent" => {
                found.extend(recorded.get(&handles["event"]).map(|stream| (at, *stream)));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn streams_outlive_questions_about_their_events() {
    for device in devices() {
        let Some(door) = Door::of(&device) else { continue };
        let stream = device.stream().unwrap();
        let mut values = device.zeros::<u8>(50_000).unwrap();
        door.trace(true);
        values.clear(&stream).unwrap();
        drop(stream);
        device.sync().unwrap();
        let calls = calls(&door.trace(false));
        let destroyed = calls.iter().position(|(name, _)| name.starts_with("StreamDestroy"));
        let destroyed = destroyed.expect("its work has run");
        let stream = calls[destroyed].1["stream"];
        let questions = questions(&calls);
        assert!(questions.iter().any(|(_, of)| *of == stream), "{calls:?}");
        assert!(questions.iter().all(|(at, of)| *of != stream || *at < destroyed), "{calls:?}");
    }
}

#[test]
fn nothing_is_asked_about_events_of_a_stream_that_is_captured() {
    for device in devices() {
        let Some(door) = Door::of(&device) else { continue };
        let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
        let mut values = device.zeros::<u8>(50_000).unwrap();
        door.trace(true);
        values.clear(&stream).unwrap();
        let before = stream.record().unwrap();
        let graph = stream.capture(|| {
            values.clear(&stream)?;
            other.wait(&before)?;
            device.sync()?;
            device.upload(&[1u8; 77]).map(drop)
        });
        graph.unwrap();
        let calls = calls(&door.trace(false));
        let position = |what: &str| calls.iter().position(|(name, _)| name.starts_with(what));
        let (begin, end) =
            (position("StreamBeginCapture").unwrap(), position("StreamEndCapture").unwrap());
        let stream = calls[begin].1["stream"];
        let inside = |(at, of): &&(usize, u64)| (begin..end).contains(at) && *of == stream;
        assert_eq!(questions(&calls).iter().find(inside), None, "{calls:?}");
    }
}
