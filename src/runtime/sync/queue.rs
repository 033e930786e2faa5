//! Who waits for something, in order, threaded through what lies on the waiters' own stacks.
//!
//! A waiter makes a [`Node`] on its stack, puts it into a [`Queue`], and is suspended until somebody has
//! taken the node out. So waiting needs no memory, and leaving early is as cheap as being served.

use std::ptr::null_mut;
use std::sync::Arc;

use crate::wasm::end::Wake;

/// What became of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the queue.
    Waits,
    /// It got what it waited for.
    Served,
    /// There is nothing more to come.
    Closed,
}

/// A waiter's place. Whoever may use the queue may use its nodes (invariant **one guard**): the lock of a
/// channel, or the ownership of a store.
pub struct Node {
    prev: *mut Node,
    next: *mut Node,
    wake: Option<Arc<dyn Wake>>,
    pub fate: Fate,
    /// What is handed over, to or from the waiter.
    pub value: u64,
}

impl Node {
    pub fn new(value: u64, wake: Arc<dyn Wake>) -> Node {
        Node { prev: null_mut(), next: null_mut(), wake: Some(wake), fate: Fate::Waits, value }
    }
}

/// Waiters, the longest first.
pub struct Queue {
    head: *mut Node,
    tail: *mut Node,
}

// SAFETY: the nodes are used under **one guard** only, wherever their waiters' stacks run.
unsafe impl Send for Queue {}

impl Default for Queue {
    fn default() -> Queue {
        Queue { head: null_mut(), tail: null_mut() }
    }
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Puts a node at the end.
    ///
    /// # Safety
    ///
    /// The node is in no queue, stays where it is until it is taken out, and is used as **one guard** says.
    pub unsafe fn push(&mut self, node: *mut Node) {
        // SAFETY: per contract, for this node and for those in the queue.
        unsafe {
            (*node).prev = self.tail;
            match self.tail.as_mut() {
                Some(tail) => tail.next = node,
                None => self.head = node,
            }
        }
        self.tail = node;
    }

    /// Takes a waiting node out.
    ///
    /// # Safety
    ///
    /// The node is in this queue.
    pub unsafe fn remove(&mut self, node: *mut Node) {
        // SAFETY: per contract; neighbours are in the queue too.
        unsafe {
            let (prev, next) = ((*node).prev, (*node).next);
            match prev.as_mut() {
                Some(prev) => prev.next = next,
                None => self.head = next,
            }
            match next.as_mut() {
                Some(next) => next.prev = prev,
                None => self.tail = prev,
            }
        }
    }

    /// Takes the longest waiter out. `serve` may look at its node, and decides its fate; it is then to be
    /// woken, once the guard is no longer held.
    pub fn serve(&mut self, serve: impl FnOnce(&mut Node) -> Fate) -> Option<Arc<dyn Wake>> {
        let node = self.head;
        // SAFETY: what is in the queue is valid, and nobody else uses it meanwhile.
        unsafe {
            let node = node.as_mut()?;
            self.remove(node);
            node.fate = serve(node);
            node.wake.take()
        }
    }

    /// Takes all out.
    pub fn close(&mut self, woken: &mut Vec<Arc<dyn Wake>>) {
        while !self.is_empty() {
            woken.extend(self.serve(|_| Fate::Closed));
        }
    }
}

#[cfg(test)]
impl Queue {
    /// How many there are.
    pub fn count(&self) -> u64 {
        let mut node = self.head;
        let mut n = 0;
        // SAFETY: what is in the queue is valid.
        while let Some(next) = unsafe { node.as_ref() } {
            (n, node) = (n + 1, next.next);
        }
        n
    }
}
