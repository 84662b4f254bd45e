//! MQTT 5 packets as bytes, by hand: right ones, and the parts that wrong ones are made of.

use std::io::{self, Read};

use anyhow::{Context, bail, ensure};

use super::repeated::written_out;

/// The properties of a packet, by their names in the standard.
pub type Properties = toml::Table;

/// A packet of this first byte.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend(variable(body.len()));
    bytes.extend(body);
    bytes
}

/// A variable byte integer.
pub fn variable(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let more = number > 0x7f;
        bytes.push((number & 0x7f) as u8 | u8::from(more) << 7);
        number >>= 7;
        if !more {
            return bytes;
        }
    }
}

/// A string with its length before it.
pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

/// Properties with their length before them (MQTT 5, table 2-4).
pub fn properties(properties: &Properties) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, value) in properties {
        let number = || value.as_integer().with_context(|| format!("{name} is a number"));
        let string = || {
            let text = written_out(value.as_str().with_context(|| format!("{name} is a string"))?)?;
            ensure!(u16::try_from(text.len()).is_ok(), "{name} is longer than a packet can say");
            anyhow::Ok(text)
        };
        let one = |id: u8| Ok::<_, anyhow::Error>(vec![id, number()? as u8]);
        let two =
            |id: u8| Ok::<_, anyhow::Error>([vec![id], (number()? as u16).to_be_bytes().into()].concat());
        let four =
            |id: u8| Ok::<_, anyhow::Error>([vec![id], (number()? as u32).to_be_bytes().into()].concat());
        let words = |id: u8| Ok::<_, anyhow::Error>([vec![id], text(&string()?)].concat());
        bytes.extend(match name.as_str() {
            "payload_format_indicator" => one(1)?,
            "message_expiry_interval" => four(2)?,
            "content_type" => words(3)?,
            "response_topic" => words(8)?,
            "correlation_data" => words(9)?,
            "subscription_identifier" => [vec![11], variable(number()? as usize)].concat(),
            "session_expiry_interval" => four(17)?,
            "assigned_client_identifier" => words(18)?,
            "server_keep_alive" => two(19)?,
            "authentication_method" => words(21)?,
            "response_information" => words(26)?,
            "server_reference" => words(28)?,
            "reason_string" => words(31)?,
            "receive_maximum" => two(33)?,
            "topic_alias_maximum" => two(34)?,
            "topic_alias" => two(35)?,
            "maximum_qos" => one(36)?,
            "retain_available" => one(37)?,
            "user_property" => [vec![38], text(&string()?), text(&string()?)].concat(),
            "maximum_packet_size" => four(39)?,
            _ => bail!("{name} is no property"),
        });
    }
    Ok([variable(bytes.len()), bytes].concat())
}

/// A publication.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// Its topic.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
    /// 0 to 3; 3 is none that the standard knows.
    pub qos: u8,
    /// It says that it was sent before.
    pub dup: bool,
    /// It says that it was kept.
    pub retain: bool,
    /// Its packet id, for QoS 1 and above.
    pub id: u16,
    /// Its properties.
    pub properties: Properties,
}

impl Publish {
    /// As it travels.
    pub fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let mut body = text(&self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        body.extend(properties(&self.properties)?);
        body.extend(&self.payload);
        Ok(packet(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain), &body))
    }
}

/// What a device sends.
#[derive(Clone, Debug)]
pub enum Received {
    /// It connects, and leaves this will.
    Connect {
        /// Its topic and payload; empty where there is none.
        will: Publish,
    },
    /// It publishes.
    Publish(Publish),
    /// It has a publication of ours.
    PubAck(u16),
    /// It subscribes.
    Subscribe {
        /// The packet id.
        id: u16,
        /// To what.
        topics: Vec<String>,
    },
    /// It is there.
    PingReq,
    /// Something else, by its first byte.
    Other(u8),
}

/// Reads one packet.
pub fn read(stream: &mut impl Read) -> io::Result<Received> {
    let mut first = [0];
    stream.read_exact(&mut first)?;
    let body = read_body(stream)?;
    let mut rest = Rest(&body);
    let received = match first[0] >> 4 {
        1 => Received::Connect { will: rest.will()? },
        3 => {
            let qos = first[0] >> 1 & 3;
            let topic = rest.text()?;
            let id = if qos > 0 { rest.u16()? } else { 0 };
            rest.skip_properties()?;
            let (dup, retain) = (first[0] & 8 != 0, first[0] & 1 != 0);
            let payload = rest.0.to_vec();
            Received::Publish(Publish { topic, payload, qos, dup, retain, id, properties: Properties::new() })
        }
        4 => Received::PubAck(rest.u16()?),
        8 => {
            let id = rest.u16()?;
            rest.skip_properties()?;
            let mut topics = Vec::new();
            while !rest.0.is_empty() {
                topics.push(rest.text()?);
                rest.take(1)?;
            }
            Received::Subscribe { id, topics }
        }
        12 => Received::PingReq,
        _ => Received::Other(first[0]),
    };
    Ok(received)
}

fn read_body(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
        if shift > 21 {
            return Err(bad());
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn bad() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// What is left of a packet.
struct Rest<'b>(&'b [u8]);

impl<'b> Rest<'b> {
    fn take(&mut self, count: usize) -> io::Result<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(bad)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> io::Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn bytes(&mut self) -> io::Result<&'b [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn text(&mut self) -> io::Result<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| bad())
    }

    fn skip_properties(&mut self) -> io::Result<()> {
        let length = read_body(&mut self.0)?;
        drop(length);
        Ok(())
    }

    /// The will of a CONNECT: after protocol, version, flags, keep-alive, properties (none in 3.1.1) and client id.
    fn will(&mut self) -> io::Result<Publish> {
        self.bytes()?;
        let head = self.take(4)?;
        let (is_5, flags) = (head[0] == 5, head[1]);
        if is_5 {
            self.skip_properties()?;
        }
        self.bytes()?;
        if flags & 4 == 0 {
            return Ok(Publish::default());
        }
        if is_5 {
            self.skip_properties()?;
        }
        let (topic, payload) = (self.text()?, self.bytes()?.to_vec());
        Ok(Publish { topic, payload, retain: true, ..Publish::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_read_as_it_was_written() {
        let written = Publish {
            topic: "a/b".into(),
            payload: vec![7; 300],
            qos: 1,
            dup: true,
            retain: true,
            id: 0x1234,
            properties: toml::toml! { response_topic = "c" },
        };
        let Received::Publish(read) = read(&mut &written.bytes().unwrap()[..]).unwrap() else {
            panic!("no publication");
        };
        assert_eq!((read.topic, read.payload, read.id), (written.topic, written.payload, written.id));
        assert!(read.dup && read.retain && read.qos == 1);
    }

    #[test]
    fn lengths_are_the_standards() {
        // MQTT 5, table 2-4.
        for (number, bytes) in
            [(0, vec![0]), (127, vec![127]), (128, vec![128, 1]), (16_384, vec![128, 128, 1])]
        {
            assert_eq!(variable(number), bytes);
        }
    }
}
