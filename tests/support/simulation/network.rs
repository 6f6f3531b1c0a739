//! What happens to requests and answers between the operator's processes and the API server.

use std::sync::Weak;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::sleep;

use super::world::World;
use crate::memory::{Call, Delivery, Fate, Passage, Weather};

/// How long a request, an answer or an event takes on its way when nothing is wrong, at most.
const LATENCY: Duration = Duration::from_millis(100);

/// The network of a simulation, over which the operator's processes reach the API server.
pub struct Network {
    world: Weak<World>,
}

impl Network {
    /// The network of this world, which need not be there yet.
    pub fn new(world: Weak<World>) -> Self {
        Self { world }
    }
}

impl Weather for Network {
    fn request<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        Box::pin(async move {
            let Some(world) = self.world.upgrade() else { return Fate::Arrives };
            world.requested(call);
            sleep(world.random.time(LATENCY)).await;
            request(&world, call).await
        })
    }

    /// Whatever was written since the last answer was written by this caller: serving a request takes no time.
    fn answer<'a>(&'a self, call: &'a Call, code: u16) -> BoxFuture<'a, Delivery> {
        let world = self.world.upgrade();
        if let Some(world) = &world {
            world.served(call, code);
        }
        Box::pin(async move {
            let Some(world) = world else { return Delivery::Arrives };
            sleep(world.random.time(LATENCY)).await;
            answer(&world, call).await
        })
    }

    fn event<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Passage> {
        Box::pin(async move {
            let Some(world) = self.world.upgrade() else { return Passage::Arrives };
            sleep(world.random.time(LATENCY)).await;
            event(&world, call).await
        })
    }
}

async fn request(world: &World, call: &Call) -> Fate {
    if world.is_cut_off(&call.user) {
        return if world.random.once_in(2) { Fate::Breaks } else { Fate::IsLost };
    }
    if world.fault("request lost", |faults| faults.request) {
        return if world.random.once_in(2) { Fate::Breaks } else { Fate::IsLost };
    }
    if world.fault("request late", |faults| faults.request) {
        // Long after its caller has given up, some of them.
        sleep(world.random.seconds(60)).await;
        return Fate::Arrives;
    }
    if world.fault("error answered", |faults| faults.request) {
        return Fate::Fails(*world.random.pick(&[429, 500, 503, 504]));
    }
    if call.verb == "watch" && world.fault("watch expired (410)", |faults| faults.watch) {
        return Fate::Expires;
    }
    if world.fault("stale cache", |faults| faults.watch) {
        return Fate::ArrivesAtCache(world.revision_before(world.random.below(20)));
    }
    Fate::Arrives
}

async fn answer(world: &World, call: &Call) -> Delivery {
    if world.is_cut_off(&call.user) {
        return if world.random.once_in(2) { Delivery::Breaks } else { Delivery::IsLost };
    }
    if world.fault("answer lost", |faults| faults.answer) {
        return *world.random.pick(&[Delivery::Breaks, Delivery::IsLost, Delivery::Fails(504)]);
    }
    if world.fault("answer late", |faults| faults.answer) {
        sleep(world.random.seconds(15)).await;
    }
    Delivery::Arrives
}

async fn event(world: &World, call: &Call) -> Passage {
    if world.is_cut_off(&call.user) {
        world.connected(&call.user).await;
    }
    if world.fault("watch silent for a while", |faults| faults.watch) {
        sleep(world.random.seconds(120)).await;
    }
    if world.fault("watch broken", |faults| faults.watch) {
        return *world.random.pick(&[Passage::Breaks, Passage::Ends, Passage::Expires]);
    }
    Passage::Arrives
}
