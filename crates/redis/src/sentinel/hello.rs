//! The hello message, by which Sentinels tell each other the configuration
//! (sentinel.c, sentinelSendHello and sentinelProcessHelloMessage):
//!
//! `ip,port,id,current_epoch,master_name,master_ip,master_port,master_config_epoch`
//!
//! A Sentinel that gets one with a higher configuration epoch than its own takes the master's
//! address from it at once, whoever is master by its own observation. The sender must be a peer it
//! knows; any other id is added as a Sentinel that does not exist, stored, and counted in every
//! majority from then on.

use std::fmt;
use std::str::FromStr;

/// A hello message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The sender's address.
    pub ip: String,
    /// The sender's port.
    pub port: u16,
    /// The sender's id, 40 hexadecimal digits.
    pub id: String,
    /// The sender's current epoch.
    pub current_epoch: u64,
    /// The name under which Sentinels know the datastore.
    pub master_name: String,
    /// The master's address.
    pub master_ip: String,
    /// The master's port.
    pub master_port: u16,
    /// The epoch of this configuration.
    pub config_epoch: u64,
}

/// A text that is no hello.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a hello message: {0}")]
pub struct InvalidHello(pub &'static str);

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{},{},{},{},{},{},{},{}",
            self.ip,
            self.port,
            self.id,
            self.current_epoch,
            self.master_name,
            self.master_ip,
            self.master_port,
            self.config_epoch
        )
    }
}

impl FromStr for Hello {
    type Err = InvalidHello;

    fn from_str(text: &str) -> Result<Self, InvalidHello> {
        let parts: Vec<&str> = text.split(',').collect();
        let [ip, port, id, current_epoch, master_name, master_ip, master_port, config_epoch] =
            parts.as_slice()
        else {
            return Err(InvalidHello("it has not eight parts"));
        };
        let port_of = |text: &str| text.parse().map_err(|_| InvalidHello("a port is no port"));
        let epoch_of = |text: &str| text.parse().map_err(|_| InvalidHello("an epoch is no number"));
        if id.len() != 40 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidHello("the id is not 40 hexadecimal digits"));
        }
        Ok(Hello {
            ip: (*ip).to_owned(),
            port: port_of(port)?,
            id: (*id).to_owned(),
            current_epoch: epoch_of(current_epoch)?,
            master_name: (*master_name).to_owned(),
            master_ip: (*master_ip).to_owned(),
            master_port: port_of(master_port)?,
            config_epoch: epoch_of(config_epoch)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = String::from_utf8_lossy(&bytes).parse::<Hello>();
        }

        #[test]
        fn what_is_written_is_read_back(
            ip in "[0-9.]{1,15}", port: u16, id in "[0-9a-f]{40}", epoch: u64, config: u64,
            name in "[a-z0-9-]{1,20}", master_ip in "[0-9a-f:.]{1,30}", master_port: u16,
        ) {
            let hello = Hello {
                ip, port, id, current_epoch: epoch, master_name: name, master_ip, master_port,
                config_epoch: config,
            };
            prop_assert_eq!(hello.to_string().parse::<Hello>(), Ok(hello));
        }
    }
}
