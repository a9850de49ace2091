//! Which stored readings somebody asks for: a device's or a site's, in a span of time, a page at a
//! time. Every rejection names the parameter.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::reading::{DeviceId, Reading, check_name, timestamp};

/// The most readings on a page.
pub(crate) const PAGE_MOST: u32 = 1_000;

/// Readings on a page where nothing is said.
const PAGE_USUAL: u32 = 100;

/// Before every time that can be stored: the year before the first that RFC 3339 can write.
const EARLIEST: Timestamp = Timestamp::constant(-62_198_755_200, 0);

/// Whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Of {
    /// A device's, ordered by time.
    Device(DeviceId),
    /// A site's, ordered by time and device.
    Site(String),
}

/// The last reading of the page before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct After {
    /// Its time.
    pub(crate) timestamp_utc: Timestamp,
    /// Its device.
    pub(crate) device_id: DeviceId,
}

/// Which readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Whose.
    pub(crate) of: Of,
    /// Not before this.
    pub(crate) from: Timestamp,
    /// Before this.
    pub(crate) to: Timestamp,
    /// Behind this one.
    pub(crate) after: Option<After>,
    /// At most so many.
    pub(crate) limit: u32,
}

/// Why a question cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SelectionError {
    /// Which parameter.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) problem: String,
}

impl Selection {
    /// The question in a request's parameters.
    pub(crate) fn parse(of: Of, query: &str) -> Result<Selection, SelectionError> {
        let mut given = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if given.insert(name.to_string(), value.to_string()).is_some() {
                return Err(wrong(&name, "it is there twice"));
            }
        }
        let mut time = |name: &str| {
            let text = given.remove(name);
            text.map(|text| timestamp(&text).map_err(|problem| wrong(name, problem))).transpose()
        };
        let from = time("from")?.unwrap_or(EARLIEST);
        let to = time("to")?.unwrap_or(Timestamp::MAX);
        let after_time = time("after")?;
        let after_device = given.remove("after_device");
        let after = match (&of, after_time, after_device) {
            (_, None, None) => None,
            (Of::Device(device), Some(timestamp_utc), None) => {
                Some(After { timestamp_utc, device_id: device.clone() })
            }
            (Of::Site(_), Some(timestamp_utc), Some(device)) => {
                let device_id =
                    DeviceId::parse(&device).map_err(|problem| wrong("after_device", problem))?;
                Some(After { timestamp_utc, device_id })
            }
            (Of::Device(_), _, Some(_)) => {
                return Err(wrong("after_device", "it is known already whose readings these are"));
            }
            (Of::Site(_), Some(_), None) | (Of::Site(_), None, Some(_)) => {
                return Err(wrong("after", "`after` and `after_device` belong together"));
            }
        };
        let limit = match given.remove("limit") {
            None => PAGE_USUAL,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=PAGE_MOST).contains(limit))
                .ok_or_else(|| wrong("limit", &format!("it must be 1 to {PAGE_MOST}")))?,
        };
        if let Some(unknown) = given.keys().next() {
            let shown: String = unknown.chars().take(60).collect();
            return Err(wrong(&shown, "there is no such parameter"));
        }
        if from > to {
            return Err(wrong("to", "it lies before `from`"));
        }
        Ok(Selection { of, from, to, after, limit })
    }

    /// The address of the page behind this one, where there may be one.
    pub(crate) fn next(&self, page: &[Reading]) -> Option<String> {
        let last = page.last().filter(|_| page.len() == self.limit as usize)?;
        let mut query = form_urlencoded::Serializer::new(String::new());
        if self.from != EARLIEST {
            query.append_pair("from", &self.from.to_string());
        }
        if self.to != Timestamp::MAX {
            query.append_pair("to", &self.to.to_string());
        }
        query.append_pair("limit", &self.limit.to_string());
        query.append_pair("after", &last.timestamp_utc.to_string());
        let encoded = |name: &str| {
            form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
        };
        let path = match &self.of {
            Of::Device(device) => format!("/devices/{}/readings", encoded(device.as_str())),
            Of::Site(site) => {
                query.append_pair("after_device", last.device_id.as_str());
                format!("/sites/{}/readings", encoded(site))
            }
        };
        Some(format!("{path}?{}", query.finish()))
    }
}

impl Of {
    /// The device in a path.
    pub(crate) fn device(name: &str) -> Result<Of, SelectionError> {
        DeviceId::parse(name).map(Of::Device).map_err(|problem| wrong("device_id", problem))
    }

    /// The site in a path.
    pub(crate) fn site(name: &str) -> Result<Of, SelectionError> {
        check_name(name)
            .map(|()| Of::Site(name.to_owned()))
            .map_err(|problem| wrong("site_id", problem))
    }
}

fn wrong(field: &str, problem: &str) -> SelectionError {
    SelectionError { field: field.to_owned(), problem: problem.to_owned() }
}
