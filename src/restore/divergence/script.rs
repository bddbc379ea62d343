//! Differing rows as SQL that can be replayed: what is to go first, then what is to be. One gzip member a block, so that no more
//! than two of them are ever held, and nothing is to be seen before all of it is there.

use std::sync::Arc;

use bytes::Bytes;

use crate::dump::literal::{identifier, qualified};
use crate::format::member::Packer;
use crate::restore::error::RestoreError;
use crate::store::{BlobStore, BlockNumber, Metadata, StoreError, Upload};

/// A block is handed over at this size.
const BLOCK_BYTES: usize = 4 << 20;
/// The first number of the blocks of rows that are to be; those of rows that are to go come before.
const FIRST_OF_ROWS: BlockNumber = 25_000;
/// As in a backup, and foreign keys unchecked: rows come in no order. Unique keys are checked, since REPLACE goes by them.
const SETTINGS: &str = "SET NAMES utf8mb4;\nSET time_zone = '+00:00';\nSET foreign_key_checks = 0;\n\
    SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_DIR_IN_CREATE';\n/*M!100200 SET check_constraint_checks = 0 */;\n\n";

/// A script on its way into the store.
pub struct Script {
    store: Arc<dyn BlobStore>,
    upload: Upload,
    packer: Packer,
    /// Text and blocks so far.
    goes: (Vec<u8>, BlockNumber),
    stays: (Vec<u8>, BlockNumber),
}

impl Script {
    pub fn new(store: Arc<dyn BlobStore>, name: String, run_id: String) -> Self {
        Self {
            store,
            upload: Upload { name, run_id },
            packer: Packer::new(6),
            goes: (Vec::new(), 0),
            stays: (Vec::new(), 0),
        }
    }

    /// `values`: the row as it stands in a backup, in parentheses.
    ///
    /// # Errors
    /// The store's.
    pub async fn replace(&mut self, table: &Named, values: &[u8]) -> Result<(), RestoreError> {
        self.stays.0.extend_from_slice(&table.replace);
        self.stays.0.extend_from_slice(values);
        self.stays.0.extend_from_slice(b";\n");
        if self.stays.0.len() >= BLOCK_BYTES {
            self.flush(false).await?;
        }
        Ok(())
    }

    /// `key`: names and values of the key's columns, as they are written.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete(&mut self, table: &Named, key: &[(String, &[u8])]) -> Result<(), RestoreError> {
        self.goes.0.extend_from_slice(&table.delete);
        for (at, (name, value)) in key.iter().enumerate() {
            let and = if at == 0 { "" } else { " AND " };
            self.goes.0.extend_from_slice(format!("{and}{name} = ").as_bytes());
            self.goes.0.extend_from_slice(value);
        }
        self.goes.0.extend_from_slice(b";\n");
        if self.goes.0.len() >= BLOCK_BYTES {
            self.flush(true).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, goes: bool) -> Result<(), RestoreError> {
        let (text, blocks) = if goes { &mut self.goes } else { &mut self.stays };
        if text.is_empty() {
            return Ok(());
        }
        // Block 0 is the head.
        let number = if goes { 1 + *blocks } else { FIRST_OF_ROWS + *blocks };
        if *blocks + 2 >= FIRST_OF_ROWS {
            return Err(stored(StoreError::Invalid {
                store: self.store.describe(),
                detail: "more rows differ than one blob can hold; compare the databases by hand".to_owned(),
            }));
        }
        let packed = pack(&mut self.packer, text, self.store.as_ref())?;
        text.clear();
        *blocks += 1;
        let staged = self.store.stage_block(&self.upload, number, packed).await;
        staged.map_err(stored)
    }

    /// Shows what was written, under its name; nothing where nothing was. `head`: lines of comment for whoever reads it.
    ///
    /// # Errors
    /// The store's.
    pub async fn commit(mut self, head: &[String]) -> Result<Option<String>, RestoreError> {
        self.flush(true).await?;
        self.flush(false).await?;
        if (self.goes.1, self.stays.1) == (0, 0) {
            return Ok(None);
        }
        let mut text = String::new();
        for line in head {
            // Names are other people's: none may end the comment.
            let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            text.push_str(&format!("-- {line}\n"));
        }
        text.push('\n');
        text.push_str(SETTINGS);
        let packed = pack(&mut self.packer, text.as_bytes(), self.store.as_ref())?;
        self.store.stage_block(&self.upload, 0, packed).await.map_err(stored)?;
        let mut blocks = vec![0];
        blocks.extend((0..self.goes.1).map(|block| 1 + block));
        blocks.extend((0..self.stays.1).map(|block| FIRST_OF_ROWS + block));
        let committed = self.store.commit(&self.upload, &blocks, &Metadata::new()).await;
        Ok(Some(committed.map_err(stored)?.name))
    }
}

fn pack(packer: &mut Packer, text: &[u8], store: &dyn BlobStore) -> Result<Bytes, RestoreError> {
    let mut packed = Vec::new();
    packer.pack(text, &mut packed).map_err(|error| {
        stored(StoreError::Invalid {
            store: store.describe(),
            detail: error.to_string(),
        })
    })?;
    Ok(packed.into())
}

pub fn stored(error: StoreError) -> RestoreError {
    RestoreError::Backup(error.into())
}

/// How statements about one table begin.
#[derive(Debug)]
pub struct Named {
    /// As rows stand in a backup of it.
    pub insert: Vec<u8>,
    replace: Vec<u8>,
    delete: Vec<u8>,
}

impl Named {
    pub fn new(schema: &str, table: &str, columns: &[&str]) -> Self {
        let name = qualified(schema, table);
        let columns: Vec<String> = columns.iter().map(|column| identifier(column)).collect();
        let columns = columns.join(",");
        Self {
            insert: format!("INSERT INTO {name} ({columns}) VALUES\n").into_bytes(),
            replace: format!("REPLACE INTO {name} ({columns}) VALUES ").into_bytes(),
            delete: format!("DELETE FROM {name} WHERE ").into_bytes(),
        }
    }
}
