//! The livelock of bytebeamio/rumqtt#1056: a client whose event loop outlives its session stops to publish when the broker
//! loses the session while a publication waits behind one with the same packet id. The bare client has it; the device,
//! whose conversation begins anew with each connection and which keeps what it must say itself, has not.

use std::time::Duration;

use anyhow::Context;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, ConnectionError, MqttOptions, StateError};
use vigil_tests::hostile::packet::properties;
use vigil_tests::hostile::{Acknowledge, Broker, Manners, connack};
use vigil_tests::room::{DEVICE, Room};

const LIMIT: Duration = Duration::from_secs(60);

/// A broker that has lost the session, and acknowledges again. Its keep-alive is short: it drives the client's timeouts.
fn forgetful() -> anyhow::Result<Manners> {
    let properties = properties(&toml::toml! { server_keep_alive = 1 })?;
    Ok(Manners { connack: connack(false, 0, &properties), ..Manners::honest(false) })
}

async fn bare_client(broker: &Broker) -> anyhow::Result<u32> {
    let mut options = MqttOptions::new("bare", "localhost", broker.port);
    // Three packet ids: the fourth publication has that of the first.
    options.set_clean_start(false).set_outgoing_inflight_upper_limit(3);
    let (client, mut event_loop) = AsyncClient::new(options, 16);
    broker.behave(Manners { acknowledge: Acknowledge::AllBut(1), ..forgetful()? });
    for topic in ["1", "2", "3", "4"] {
        client.publish(topic, QoS::AtLeastOnce, false, "before").await?;
    }
    while event_loop.state.collision.is_none() {
        event_loop.poll().await?;
    }
    broker.behave(forgetful()?);
    broker.close();
    client.publish("after", QoS::AtLeastOnce, false, "after").await?;
    // It goes round: connects, waits for the packet id, gives up, connects.
    let mut given_up = 0;
    while given_up < 2 {
        // Other errors are the end of the first connection.
        if let Err(ConnectionError::MqttState(StateError::CollisionTimeout)) = event_loop.poll().await {
            given_up += 1;
        }
    }
    Ok(given_up)
}

#[test]
fn a_client_that_outlives_its_session_publishes_no_more() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let given_up = runtime.block_on(async { tokio::time::timeout(LIMIT, bare_client(&broker)).await });
    assert_eq!(given_up.context("it has not given up twice")??, 2);
    let seen = broker.seen();
    assert!(seen.connects > 2, "{} connections", seen.connects);
    let after = seen.published.iter().filter(|publish| publish.topic == "after").count();
    assert_eq!(after, 0, "the client has got over it: a client for each connection is needed no more");
    Ok(())
}

#[test]
fn a_device_whose_session_is_lost_before_anything_is_acknowledged_says_everything_again() -> anyhow::Result<()>
{
    let broker = Broker::start()?;
    // Its subscription has the first packet id, its first publication the second.
    broker.behave(Manners { acknowledge: Acknowledge::AllBut(2), ..Manners::honest(false) });
    let mut room = Room::elsewhere(|options| {
        options.broker = format!(
            "url = \"mqtt://localhost:{}\"\nallow_plaintext = true\nkeep_alive = \"10s\"\nbackoff_max = \"1s\"\nfleet_size = 1\n",
            broker.port
        );
    })?;
    room.device.power_on()?;
    let presence = format!("vigil/v1/{DEVICE}/presence");
    for round in 1..=5 {
        broker.wait("a presence that is not acknowledged", |seen| {
            let presences = seen.published.iter().filter(|publish| publish.topic == presence).count();
            (presences >= round).then_some(())
        })?;
        if round == 5 {
            broker.behave(Manners::honest(false));
        }
        broker.close();
    }
    let before = broker.seen().published.len();
    for topic in ["presence", "inventory", "health", "update", "config", "digest"] {
        let topic = format!("vigil/v1/{DEVICE}/{topic}");
        broker.wait(&format!("{topic} to be said again"), |seen| {
            seen.published[before..].iter().any(|publish| publish.topic == topic).then_some(())
        })?;
    }
    room.lives()
}
