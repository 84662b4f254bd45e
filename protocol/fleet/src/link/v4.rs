//! MQTT 3.1.1, for brokers that have no 5.

use rumqttc::mqttbytes::v4::{Packet, SubscribeReasonCode};
use rumqttc::{ConnectionError, Event as MqttEvent, EventLoop, MqttOptions};
use tokio::sync::mpsc;

use super::{Event, Failure, KEEP_ALIVE, Layer, Message, PACKET_BYTES, login, network, transport};

pub(super) fn options(settings: &Layer) -> Result<MqttOptions, Failure> {
    let broker = settings.broker()?;
    let transport = transport(settings, &broker)?;
    let mut mqtt = MqttOptions::new(super::client_id()?, broker.host, broker.port);
    mqtt.set_keep_alive(KEEP_ALIVE).set_clean_session(true).set_transport(transport);
    // It cannot be asked to keep larger ones from us: they end the connection.
    mqtt.set_max_packet_size(PACKET_BYTES as usize, PACKET_BYTES as usize);
    if let Some((username, password)) = login(settings)? {
        mqtt.set_credentials(username, password);
    }
    Ok(mqtt)
}

pub(super) async fn run(mut event_loop: EventLoop, events: mpsc::Sender<Event>) {
    event_loop.set_network_options(network());
    loop {
        let event = match event_loop.poll().await {
            Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => Event::Connected,
            Ok(MqttEvent::Incoming(Packet::Publish(publish))) => {
                Event::Message(Message { topic: publish.topic, payload: publish.payload.to_vec() })
            }
            Ok(MqttEvent::Incoming(Packet::SubAck(ack))) => Event::Subscribed(
                ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))),
            ),
            // It has no word for a message that it does not take.
            Ok(MqttEvent::Incoming(Packet::PubAck(_))) => Event::Published(None),
            Ok(_) => continue,
            Err(error) => {
                let _ = events.send(Event::Closed { why: explain(&error), speaks_no_5: false }).await;
                return;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => {
            format!("the broker refused us ({code:?}); check username, password file and certificate")
        }
        other => other.to_string(),
    }
}
