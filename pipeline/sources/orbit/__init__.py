"""ORBIT: folders and ZIPs of frames, and raw videos.

layout (paths) ─► frames, video (the frames of each video) ─► annotations, official ─► source
"""
