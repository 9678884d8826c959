"""ORBIT: folders and ZIPs of frames, and raw videos.

layout (names) ─► frames, video (what each video holds) ─► annotations, official ─► source
"""
