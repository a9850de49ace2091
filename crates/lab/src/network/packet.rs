//! What a link looks at in an IPv4 packet: to which TCP connection it belongs and whether it opens one;
//! and how it is made to end one. Fragments and IPv6 are left out: a lab has none.

const TCP: u8 = 6;
const PROTOCOL: usize = 9;
const IP_HEADER: usize = 20;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// Addresses and ports, as they stand in the packet.
pub type Connection = [u8; 12];

/// Where the TCP header is, if there is a whole one.
fn tcp(packet: &[u8]) -> Option<usize> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let whole = header >= IP_HEADER && packet.len() >= header + 20;
    (whole && packet[PROTOCOL] == TCP).then_some(header)
}

/// To which connection a packet belongs.
pub fn connection(packet: &[u8]) -> Option<Connection> {
    let at = tcp(packet)?;
    let mut connection = [0; 12];
    connection[..8].copy_from_slice(&packet[12..20]);
    connection[8..].copy_from_slice(&packet[at..at + 4]);
    Some(connection)
}

/// Whether it opens a connection, from either end.
pub fn opens(packet: &[u8]) -> bool {
    tcp(packet).is_some_and(|at| packet[at + FLAGS] & SYN != 0)
}

/// Let it end its connection at whoever receives it.
pub fn reset(packet: &mut [u8]) {
    let Some(at) = tcp(packet).filter(|at| packet[at + FLAGS] & SYN == 0) else { return };
    let word = |packet: &[u8], place: usize| u16::from_be_bytes([packet[place], packet[place + 1]]);
    let flags = at + FLAGS - 1;
    let before = word(packet, flags);
    packet[at + FLAGS] |= RST;
    let after = word(packet, flags);
    // RFC 1624: the sum after one word has changed.
    let sum = u32::from(!word(packet, at + CHECKSUM)) + u32::from(!before) + u32::from(after);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let checksum = !u16::try_from(folded).unwrap_or(u16::MAX);
    packet[at + CHECKSUM..at + CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A packet of a connection from this port, with these flags.
    pub fn tcp(port: u8, flags: u8) -> [u8; 40] {
        let mut packet = [0; 40];
        packet[0] = 0x45;
        packet[PROTOCOL] = TCP;
        packet[IP_HEADER + 1] = port;
        packet[IP_HEADER + 12] = 0x50;
        packet[IP_HEADER + FLAGS] = flags;
        packet
    }

    /// The sum over the TCP header alone, which is zero where the checksum fits.
    fn sum(packet: &[u8]) -> u16 {
        let words = packet[IP_HEADER..].chunks(2).map(|two| u16::from_be_bytes([two[0], two[1]]));
        let sum = words.fold(0_u32, |sum, word| sum + u32::from(word));
        !(((sum & 0xffff) + (sum >> 16)) as u16)
    }

    #[test]
    fn a_packet_that_ends_its_connection_has_the_right_sum() {
        let mut packet = tcp(7, 0x18);
        let right = sum(&packet).to_be_bytes();
        packet[IP_HEADER + CHECKSUM..IP_HEADER + CHECKSUM + 2].copy_from_slice(&right);
        assert_eq!(sum(&packet), 0);
        reset(&mut packet);
        assert_eq!((packet[IP_HEADER + FLAGS], sum(&packet)), (0x1c, 0));
        let mut opening = tcp(7, 0x02);
        reset(&mut opening);
        assert_eq!(opening, tcp(7, 0x02));
    }

    #[test]
    fn what_is_no_whole_tcp_packet_belongs_to_no_connection() {
        let packet = tcp(7, 0x10);
        assert!(connection(&packet).is_some() && !opens(&packet) && opens(&tcp(7, 0x12)));
        assert_ne!(connection(&packet), connection(&tcp(8, 0x10)));
        for length in 0..40 {
            assert_eq!(connection(&packet[..length]), None);
        }
        let mut udp = packet;
        udp[PROTOCOL] = 17;
        assert_eq!(connection(&udp), None);
    }
}
