//! Channels: bounded, many senders, many receivers; between fibers of any store and plain threads.
//!
//! A value goes straight to a receiver that waits, and a sender that waits has its value moved in by the receiver that
//! makes room, so there are waiting receivers only while the channel is empty, and waiting senders only while it
//! is full.

use std::collections::VecDeque;

use super::Guarded;
use super::queue::{Fate, Node, Queue};
use crate::runtime::wait::{Status, Waiter};

/// See the head of this file.
pub struct Channel {
    capacity: usize,
    inner: Guarded<Inner>,
}

#[derive(Default)]
struct Inner {
    values: VecDeque<u64>,
    closed: bool,
    senders: Queue,
    receivers: Queue,
}

impl Channel {
    /// A channel that holds so many values; with none, each is handed over from sender to receiver.
    pub fn new(capacity: usize) -> Result<Channel, String> {
        let mut inner = Inner::default();
        // What is promised must be there: a send into a channel with room never fails.
        let room = inner.values.try_reserve_exact(capacity);
        room.map_err(|_| format!("no memory for a channel of {capacity} values"))?;
        Ok(Channel { capacity, inner: Guarded::new(inner) })
    }

    /// Values that it may hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sends a value; waits while the channel is full.
    pub fn send(&self, value: u64, deadline: Option<u64>) -> Status {
        if Waiter::cancelled() {
            return Status::Cancelled;
        }
        let mut inner = self.inner.lock();
        if inner.closed {
            return Status::Closed;
        }
        let hand_over = |node: &mut Node| {
            node.value = value;
            Fate::Served
        };
        if let Some(receiver) = inner.receivers.serve(hand_over) {
            drop(inner);
            receiver.wake();
            return Status::Ok;
        }
        if inner.values.len() < self.capacity {
            inner.values.push_back(value);
            return Status::Ok;
        }
        self.inner.wait(inner, |inner| &mut inner.senders, value, deadline).0
    }

    /// Receives a value; waits while the channel is empty.
    pub fn receive(&self, deadline: Option<u64>) -> Result<u64, Status> {
        if Waiter::cancelled() {
            return Err(Status::Cancelled);
        }
        let mut inner = self.inner.lock();
        let mut value = inner.values.pop_front();
        let mut moved = None;
        let sender = inner.senders.serve(|node| {
            moved = Some(node.value);
            Fate::Served
        });
        match (value, moved) {
            (Some(_), Some(moved)) => inner.values.push_back(moved),
            (None, moved) => value = moved,
            _ => {}
        }
        if let Some(value) = value {
            drop(inner);
            sender.inspect(|sender| sender.wake());
            return Ok(value);
        }
        if inner.closed {
            return Err(Status::Closed);
        }
        let (status, value) = self.inner.wait(inner, |inner| &mut inner.receivers, 0, deadline);
        if status == Status::Ok { Ok(value) } else { Err(status) }
    }

    /// Closes the channel: what is in it can still be received. False if it was closed.
    pub fn close(&self) -> bool {
        let mut woken = Vec::new();
        let first = {
            let mut inner = self.inner.lock();
            let first = !std::mem::replace(&mut inner.closed, true);
            inner.senders.close(&mut woken);
            inner.receivers.close(&mut woken);
            first
        };
        woken.iter().for_each(|waiter| waiter.wake());
        first
    }

    /// Values in it at the moment.
    pub fn len(&self) -> usize {
        self.inner.lock().values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;
    use std::thread::{scope, sleep};
    use std::time::Duration;

    #[test]
    fn values_come_out_in_order_until_closed_and_drained() {
        let c = Channel::new(3).unwrap();
        (1..=3).for_each(|v| assert_eq!(c.send(v, None), Status::Ok));
        assert_eq!(c.send(4, Some(0)), Status::Timeout);
        assert_eq!(c.len(), 3);
        assert_eq!(c.receive(None), Ok(1));
        assert!(c.close() && !c.close());
        assert_eq!(c.send(5, None), Status::Closed);
        assert_eq!([c.receive(None), c.receive(None), c.receive(None)], [Ok(2), Ok(3), Err(Status::Closed)]);
        assert!(Channel::new(usize::MAX).is_err());
    }

    #[test]
    fn who_waits_is_served_in_order_and_woken_by_close() {
        for capacity in 0..3 {
            let c = Channel::new(capacity).unwrap();
            scope(|s| {
                for v in 0..capacity as u64 {
                    assert_eq!(c.send(v, None), Status::Ok);
                }
                // Each must be in the queue before the next one comes.
                for v in 0..3 {
                    let c = &c;
                    s.spawn(move || assert_eq!(c.send(capacity as u64 + v, None), Status::Ok));
                    while c.waiting() != v + 1 {
                        sleep(Duration::from_micros(50));
                    }
                }
                assert_eq!(c.send(99, Some(clock::now() + 1_000_000)), Status::Timeout);
                (0..capacity as u64 + 3).for_each(|v| assert_eq!(c.receive(None), Ok(v)));
                assert_eq!(c.receive(Some(clock::now() + 1_000_000)), Err(Status::Timeout));
                let receiver = s.spawn(|| c.receive(None));
                while c.waiting() != 1 {
                    sleep(Duration::from_micros(50));
                }
                c.close();
                assert_eq!(receiver.join().unwrap(), Err(Status::Closed));
            });
        }
    }

    impl Channel {
        /// How many wait.
        fn waiting(&self) -> u64 {
            let inner = self.inner.lock();
            inner.senders.count() + inner.receivers.count()
        }
    }

    #[test]
    fn many_to_many_loses_nothing() {
        const N: u64 = 20_000;
        for capacity in [0, 1, 7] {
            let c = Channel::new(capacity).unwrap();
            let sum = scope(|s| {
                let senders: Vec<_> = (0..3)
                    .map(|_| s.spawn(|| (1..=N).for_each(|v| assert_eq!(c.send(v, None), Status::Ok))))
                    .collect();
                let drain = || std::iter::from_fn(|| c.receive(None).ok()).sum::<u64>();
                let receivers: Vec<_> = (0..3).map(|_| s.spawn(drain)).collect();
                senders.into_iter().for_each(|t| t.join().unwrap());
                c.close();
                receivers.into_iter().map(|t| t.join().unwrap()).sum::<u64>()
            });
            assert_eq!(sum, 3 * N * (N + 1) / 2);
        }
    }
}
