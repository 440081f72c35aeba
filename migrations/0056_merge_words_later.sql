-- Parts of the index of words are merged when there are eight, not four: about a twentieth more calls are recorded a second
-- (`cargo bench --bench load -- store`), and a question by a rare word reads more parts.
INSERT INTO audit_words (audit_words, rank) VALUES ('automerge', 8);
