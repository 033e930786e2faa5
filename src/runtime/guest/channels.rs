//! Channels between the fibers of a guest's store.

use std::sync::Arc;

use wasmtime::{Linker, Result};
use wasmtime_c_api::WasmtimeStoreData;

use super::{Call, MODULE, Reply, check, fiber, held, write};
use crate::runtime::sync::channel::Channel;

/// Values for which a store's channels may have room, all together: it is the host's memory, 128 MiB at the
/// most.
const ROOM: usize = 1 << 24;
/// The same for one channel.
const CAPACITY: u32 = 1 << 20;

pub fn define(linker: &mut Linker<WasmtimeStoreData>) -> Result<()> {
    linker.func_wrap(MODULE, "channel_new", |mut caller: Call<'_>, capacity: u32| {
        let running = fiber(&mut caller)?;
        Ok(held(&running.strand, |held| {
            let room = held.room + capacity as usize;
            if capacity > CAPACITY || room > ROOM || held.is_full() {
                return 0;
            }
            let Ok(channel) = Channel::new(capacity as usize) else { return 0 };
            held.room = room;
            // Numbers come again after four thousand million; those still in use do not.
            loop {
                held.last_channel = held.last_channel.wrapping_add(1).max(1);
                if !held.channels.contains_key(&held.last_channel.into()) {
                    break;
                }
            }
            held.channels.insert(held.last_channel.into(), Arc::new(channel));
            held.last_channel
        }))
    })?;
    linker.func_wrap(MODULE, "channel_send", |mut caller: Call<'_>, channel: u32, value: u64| {
        let found = find(&mut caller, channel)?;
        let reply = found.map_or(Reply::Invalid, |channel| channel.send(value, None).into());
        Ok(reply as i32)
    })?;
    linker.func_wrap(MODULE, "channel_receive", |mut caller: Call<'_>, channel: u32, value: u32| {
        let running = fiber(&mut caller)?;
        // Before a value is taken out for nobody.
        check(&mut caller, running, value, 8)?;
        let Some(channel) = find(&mut caller, channel)? else { return Ok(Reply::Invalid as i32) };
        let reply = match channel.receive(None) {
            Ok(received) => {
                write(&mut caller, running, value, &received.to_le_bytes())?;
                Reply::Ok
            }
            Err(status) => status.into(),
        };
        Ok(reply as i32)
    })?;
    linker.func_wrap(MODULE, "channel_close", |mut caller: Call<'_>, channel: u32| {
        let reply = match find(&mut caller, channel)? {
            None => Reply::Invalid,
            Some(channel) if channel.close() => Reply::Ok,
            Some(_) => Reply::Closed,
        };
        Ok(reply as i32)
    })?;
    linker.func_wrap(MODULE, "channel_delete", |mut caller: Call<'_>, channel: u32| {
        let running = fiber(&mut caller)?;
        let gone = held(&running.strand, |held| {
            let gone = held.channels.remove(&channel.into());
            held.room -= gone.as_ref().map_or(0, |channel| channel.capacity());
            gone
        });
        // Whoever waits in it learns that nobody can reach it any more.
        let Some(channel) = gone else { return Ok(Reply::Invalid as i32) };
        channel.close();
        Ok(Reply::Ok as i32)
    })?;
    Ok(())
}

/// The channel with this number. A waiting call keeps it.
fn find(caller: &mut Call<'_>, channel: u32) -> Result<Option<Arc<Channel>>> {
    let running = fiber(caller)?;
    Ok(held(&running.strand, |held| held.channels.get(&channel.into()).cloned()))
}
