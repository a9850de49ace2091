//! The header of the PROXY protocol, version 2, as HAProxy's specification has it: who the client is, for
//! a server that would otherwise see the router. Left out: version 1, which is text, and everything
//! optional.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and on behalf of somebody else.
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// Of a client that connected from here to there.
pub fn v2(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(36);
    // A socket for both families names an IPv4 client by an IPv6 address.
    let family = match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            addresses.extend(from.octets());
            addresses.extend(to.octets());
            TCP_OVER_IPV4
        }
        (from, to) => {
            addresses.extend(in_ipv6(from).octets());
            addresses.extend(in_ipv6(to).octets());
            TCP_OVER_IPV6
        }
    };
    addresses.extend(from.port().to_be_bytes());
    addresses.extend(to.port().to_be_bytes());
    let mut header = SIGNATURE.to_vec();
    header.extend([PROXY, family]);
    // 12 or 36.
    header.extend((addresses.len() as u16).to_be_bytes());
    header.extend(addresses);
    header
}

fn in_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_client_of_a_socket_for_both_families_is_named_by_its_own() {
        let to = "[::ffff:10.0.1.10]:6432".parse().unwrap();
        let header = v2("[::ffff:10.1.2.3]:258".parse().unwrap(), to);
        let wanted = [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0,
            12, 10, 1, 2, 3, 10, 0, 1, 10, 1, 2, 0x19, 0x20,
        ];
        assert_eq!(header, wanted);
    }
}
