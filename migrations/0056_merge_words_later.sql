-- Parts of the index of words are merged when there are more of them: under load that was a tenth of what arranging costs.
INSERT INTO audit_words (audit_words, rank) VALUES ('automerge', 8);
