//! Graphs.

use std::ffi::{c_char, c_uint, c_void};

use halfstep_vgpu::driver::error::{Error, Result};
use halfstep_vgpu::driver::front;
use halfstep_vgpu::driver::graph::Graph;
use halfstep_vgpu::driver::work::{Place, Work};

use crate::call::{export, lock, put, put_if};

/// The graph and the node of a handle that [`front::graph_nodes`] gave.
fn node_of(handle: u64) -> (u64, usize) {
    ((0x16 << 40) | handle >> 32, (handle & 0x7fff_ffff) as usize)
}

/// CUDA_GRAPH_INSTANTIATE_PARAMS.
#[repr(C)]
pub struct InstantiateParams {
    flags: u64,
    upload: u64,
    error_node: u64,
    result: c_uint,
}

fn instantiate(exec: *mut u64, graph: u64) -> Result {
    put(exec, lock().instantiate(graph)?)
}

export! {
    #[doc = "An empty graph."]
    fn cuGraphCreate(graph: *mut u64, flags: c_uint) {
        put(graph, lock().graphs.add(Graph { nodes: [].into() }))
    }

    #[doc = "The same graph once more."]
    fn cuGraphClone(clone: *mut u64, graph: u64) {
        let mut d = lock();
        let copy = d.graphs.get(graph)?.clone();
        put(clone, d.graphs.add(copy))
    }

    #[doc = "Ends a graph."]
    fn cuGraphDestroy(graph: u64) {
        lock().graphs.remove(graph).map(|_| ())
    }

    #[doc = "A graph's nodes, or how many they are."]
    fn cuGraphGetNodes(graph: u64, nodes: *mut u64, count: *mut usize) {
        front::graph_nodes(&lock(), graph, nodes, count)
    }

    #[doc = "What a node does: 0 kernel, 1 copy, 2 fill, 3 host, 5 nothing."]
    fn cuGraphNodeGetType(handle: u64, kind: *mut c_uint) {
        let d = lock();
        let (graph, index) = node_of(handle);
        let found = d.graphs.get(graph)?.nodes.get(index).ok_or(Error::InvalidValue)?;
        put(kind, match &found.work {
            Work::Launch(_) => 0,
            Work::Copy { to: Place::Mapped(_) | Place::Host(_), .. } | Work::Upload { .. } => 1,
            Work::Fill { .. } => 2,
            Work::Host(_) => 3,
            _ => 5,
        })
    }

    #[doc = "Makes a graph ready."]
    fn cuGraphInstantiateWithFlags(exec: *mut u64, graph: u64, flags: u64) {
        instantiate(exec, graph)
    }

    #[doc = "Makes a graph ready."]
    fn cuGraphInstantiate_v2(
        exec: *mut u64,
        graph: u64,
        error_node: *mut u64,
        log: *mut c_char,
        bytes: usize,
    ) {
        put_if(error_node, 0);
        instantiate(exec, graph)
    }

    #[doc = "Makes a graph ready."]
    fn cuGraphInstantiateWithParams(exec: *mut u64, graph: u64, params: *mut InstantiateParams) {
        if params.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null; the caller promised a block of this layout.
        let params = unsafe { &mut *params };
        (params.error_node, params.result) = (0, 0);
        instantiate(exec, graph)
    }

    #[doc = "Gives a stream a whole graph."]
    fn cuGraphLaunch(exec: u64, stream: u64) {
        let mut d = lock();
        let stream = d.stream(stream)?;
        d.launch_graph(exec, stream)
    }

    #[doc = "Nothing: graphs are ready when they are made so."]
    fn cuGraphUpload(exec: u64, stream: u64) {
        let mut d = lock();
        d.stream(stream)?;
        d.execs.get(exec).map(|_| ())
    }

    #[doc = "Ends a ready graph."]
    fn cuGraphExecDestroy(exec: u64) {
        lock().destroy_exec(exec)
    }

    #[doc = "Other parameters for a ready graph."]
    fn cuGraphExecUpdate_v2(exec: u64, graph: u64, result: *mut c_void) {
        // The first field is 0 for success and 1 for an error.
        let done = lock().update_exec(exec, graph)?;
        put_if(result.cast::<c_uint>(), u32::from(!done));
        // CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE
        if done { Ok(()) } else { Err(Error::Injected(910)) }
    }
}
