//! Sends a command and hands over what comes back; a lost connection is made again meanwhile.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

use super::Context;
use crate::answers::{Answers, News, What, sentence};
use crate::failure::Failure;
use crate::link::{Link, Message};
use crate::order::Order;
use crate::text::{self, Tone, clean, line};

const RECONNECT: Duration = Duration::from_secs(3);

/// A subscription that outlives its connection. Retained state comes again with each new one.
pub(super) struct Steady<'a> {
    context: &'a Context,
    filters: Vec<String>,
    link: Link,
}

impl<'a> Steady<'a> {
    /// Connects and subscribes; the first time, a broker that cannot be reached is an error.
    pub(super) async fn open(context: &'a Context, filters: Vec<String>) -> Result<Self, Failure> {
        let link = subscribed(context, &filters).await?;
        Ok(Self { context, filters, link })
    }

    /// The connection as it is now.
    pub(super) fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// The next message, or none by the deadline.
    pub(super) async fn next(&mut self, deadline: Instant) -> Result<Option<Message>, Failure> {
        loop {
            match self.link.next(deadline).await {
                Err(Failure::Unreachable(why)) => {
                    eprintln!("{why}; connecting again");
                    if !self.connect_again(deadline).await? {
                        return Ok(None);
                    }
                }
                other => return other,
            }
        }
    }

    async fn connect_again(&mut self, deadline: Instant) -> Result<bool, Failure> {
        loop {
            tokio::time::sleep_until(deadline.min(Instant::now() + RECONNECT)).await;
            if Instant::now() >= deadline {
                return Ok(false);
            }
            match subscribed(self.context, &self.filters).await {
                Ok(link) => {
                    self.link = link;
                    return Ok(true);
                }
                Err(Failure::Unreachable(_)) => {}
                Err(other) => return Err(other),
            }
        }
    }
}

async fn subscribed(context: &Context, filters: &[String]) -> Result<Link, Failure> {
    let mut link = Link::open(&context.settings).await?;
    link.subscribe(filters).await?;
    Ok(link)
}

/// Publishes a command and says so.
pub(super) async fn publish(context: &Context, link: &mut Link, order: &Order) -> Result<(), Failure> {
    let topic = order.topic(context.settings.prefix()?)?;
    let left = order.command.expires.as_second() - Timestamp::now().as_second();
    if left <= 0 {
        return Err(Failure::Usage("the envelope has expired; sign a new one".to_owned()));
    }
    link.publish(&topic, order.envelope.clone(), Duration::from_secs(left.unsigned_abs())).await?;
    if context.json {
        return text::json(
            &json!({"sent": order.command.id, "topic": topic, "expires": order.command.expires}),
        );
    }
    line(&format!("sent {} {} to {topic}", order.command.kind, order.command.id), Tone::Plain)
}

/// Publishes a command and hands over what comes back, until `on` has enough, or until the time is up.
pub(super) async fn follow(
    context: &Context,
    order: &Order,
    timeout: Duration,
    mut on: impl FnMut(&Answers, &News) -> Result<bool, Failure>,
) -> Result<Answers, Failure> {
    let prefix = context.settings.prefix()?;
    let mut steady = Steady::open(context, order.answers(prefix)).await?;
    publish(context, steady.link(), order).await?;
    let deadline = Instant::now() + timeout;
    let mut answers = Answers::new(&order.command.id);
    while let Some(message) = steady.next(deadline).await? {
        let Some(news) = answers.take(prefix, &message.topic, &message.payload) else { continue };
        if news.what == What::Unreadable {
            eprintln!("{}: an answer that this version cannot read", news.device);
        } else if on(&answers, &news)? {
            break;
        }
    }
    Ok(answers)
}

/// How it ended, once it is over.
pub(super) fn conclude(
    answers: &Answers,
    expected: Option<usize>,
    order: &Order,
    timeout: Duration,
) -> Result<(), Failure> {
    if answers.failed() > 0 {
        // Said already, device by device.
        return Err(Failure::Said(1));
    }
    if answers.finished() >= expected.unwrap_or(answers.heard().max(1)) {
        return Ok(());
    }
    let advice = if answers.heard() == 0 {
        "is it online ('vigil-fleet status'), and in this tenant?"
    } else {
        "it is still at work; 'vigil-fleet watch' shows the end"
    };
    Err(Failure::NoAnswer(format!(
        "no final answer within {} s: {advice} The command is valid until {}.",
        timeout.as_secs(),
        order.command.expires
    )))
}

/// One answer, as a line of JSON or for a person.
pub(super) fn show_result(context: &Context, news: &News) -> Result<(), Failure> {
    let What::Result(result) = &news.what else { return Ok(()) };
    if context.json {
        return text::json(&json!({"device": news.device, "result": news.body}));
    }
    line(&sentence(result), tone(result.status))?;
    // A diagnosis comes on its own topic as well, and reads better there.
    if !result.output.is_null() && result.kind != "diagnose" {
        line(&format!("  {}", clean(&result.output.to_string(), 2000)), Tone::Plain)?;
    }
    Ok(())
}

fn tone(status: vigil_protocol::command::Status) -> Tone {
    use vigil_protocol::command::Status;
    match status {
        Status::Succeeded => Tone::Good,
        Status::Accepted | Status::Running => Tone::Plain,
        Status::Failed | Status::Interrupted | Status::Rejected => Tone::Bad,
    }
}
