"""Metrics: pure functions of predictions and references, and statistics on their scores.

slots         slot F1 (`slot_f1`)
midalign      slot F1 as the paper's authors compute it (`slot_f1_midalign`)
entities      entity F1, by span and by text
translation   BLEU, chrF++ and faults (empty, copied source, wrong language)
retrieval     sentence retrieval by the ratio margin, and its accuracy
representation  MEXA, linear CKA and the margin of cosines between languages
fertility     tokens per character and per word
significance  bootstrap intervals of any score
paired        the gain of one system over another, with its p value
transfer      relative transfer, consistency, the parts of a gain, the share of a gap closed
"""
